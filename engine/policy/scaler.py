"""GradScaler: a factor on the loss keeps small gradients from vanishing in float16.

Source: Micikevicius et al., "Mixed precision training", ICLR 2018.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ulpgrad.dispatch import convert
from ulpgrad.errors import ArgumentError
from ulpgrad.formats import Format, compute_format, float32, float64
from ulpgrad.kernels import capture
from ulpgrad.ops.creation import astype
from ulpgrad.scaled import Flag, all_finite, multiplied
from ulpgrad.tensor import Tensor

if TYPE_CHECKING:
    from ulpgrad.optim.optimizer import Optimizer


@dataclass
class _Seen:
    """What the scaler knows of one optimizer since the last update."""

    unscaled: bool = False
    finite: bool | Flag = True
    stepped: bool = False


class GradScaler:
    """Multiplies the loss so that small gradients do not vanish in float16, and divides the gradients before the step.

        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)      # only where gradients are looked at before the step, to clip them
        scaler.step(optimizer)
        scaler.update()

    A gradient that is not finite skips the step, multiplies the scale by `backoff_factor` and starts the count anew; when
    the count of good steps equals `growth_interval`, the scale is multiplied by `growth_factor` if that stays finite.
    Beyond torch's: the scale does not fall below `min_scale` (at 0 even finite gradients would be destroyed), and
    `skipped` counts the steps not taken. Gradients of 16-bit parameters become float32 when they are divided, so that
    nothing vanishes there; the optimizers take them so.

    Gradients are read once to see whether they are finite, and divided where they are read next, as a rule by the step itself;
    the bits are those of a pass of its own. On one GPU nobody waits: the step's kernels look whether all was finite, `step`
    returns a flag, and the scale moves when it is next asked for.
    """

    def __init__(
        self,
        init_scale: float = 65536.0,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        min_scale: float = 2.0**-14,
        enabled: bool = True,
    ) -> None:
        if not (0 < min_scale <= init_scale < math.inf):
            raise ArgumentError(
                f"GradScaler: init_scale={init_scale!r}, min_scale={min_scale!r}: expected 0 < min_scale <= init_scale"
            )
        if not (growth_factor > 1 > backoff_factor > 0 and growth_interval >= 1):
            raise ArgumentError(
                f"GradScaler: growth_factor={growth_factor!r}, backoff_factor={backoff_factor!r}, growth_interval="
                f"{growth_interval!r}: expected above 1, between 0 and 1, and at least 1"
            )
        self.growth_factor, self.backoff_factor = growth_factor, backoff_factor
        self.growth_interval, self.min_scale, self.enabled = growth_interval, min_scale, enabled
        self._skipped = 0
        self._unknown: list[bool | Flag] = []  # what the last update saw, as long as nobody has looked
        self._deciding: list[Flag] = []  # on which steps hung
        self._scale = float(init_scale)
        self._good_steps = 0
        self._seen: defaultdict[int, _Seen] = defaultdict(_Seen)

    def get_scale(self) -> float:
        """What losses are multiplied by now."""
        self._settle()
        return self._scale if self.enabled else 1.0

    @property
    def skipped(self) -> int:
        """How many steps were not taken."""
        self._settle()
        return self._skipped + sum(not finite for finite in self._deciding)

    def scale(self, loss: Tensor) -> Tensor:
        """The loss, multiplied; a 16-bit loss becomes float32, which can hold the product."""
        if not self.enabled:
            return loss
        self._settle()
        form = compute_format(loss.dtype)
        scaled: Tensor = astype(loss, form, copy=False) * self._now(lambda: self._scale, form)
        return scaled

    def _now(self, value: Callable[[], float], form: Format) -> Any:
        """A number that follows the scale; in a captured graph a tensor that each replay sets."""
        captured = capture.current()
        if captured is None:
            return value()
        captured.before.append(self._settle)
        return Tensor(captured.number(lambda: np.array(value(), form.storage)), form)

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of an optimizer's parameters by the scale. ArgumentError if that was done already."""
        if not self.enabled:
            return
        seen = self._seen[id(optimizer)]
        if seen.unscaled:
            raise ArgumentError(
                "GradScaler: the optimizer's gradients are unscaled already; call update() after step()"
            )
        self._settle()
        found = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        wide = []
        for p in found:
            g: Any = p.grad
            form = compute_format(g.dtype)
            wide.append(g if form is g.dtype else Tensor(convert(g.storage, g.dtype, form), form))
        inverse = self._now(lambda: 1.0 / self._scale, float64)
        unscaled = multiplied(wide, inverse.storage if isinstance(inverse, Tensor) else inverse)
        seen.finite = all_finite(unscaled)
        for p, gradient in zip(found, unscaled, strict=True):
            p.grad = gradient
        seen.unscaled = True

    def step(self, optimizer: Optimizer) -> bool | Flag:
        """Unscale if that is not done yet, then step unless a gradient is not finite. Returns whether it stepped: where that is
        up to a GPU, a flag whose truth waits for it.

        Raises ArgumentError when called twice before `update`.
        """
        if not self.enabled:
            optimizer.step()
            return True
        seen = self._seen[id(optimizer)]
        if seen.stepped:
            raise ArgumentError("GradScaler: step() was called for this optimizer already; call update() after it")
        if not seen.unscaled:
            self.unscale_(optimizer)
        seen.stepped = True
        if isinstance(seen.finite, Flag):
            optimizer.step_where(seen.finite)
            self._after(functools.partial(self._deciding.append, seen.finite))
        elif seen.finite:
            optimizer.step()
        else:
            self._skipped += 1
        return seen.finite

    def update(self) -> None:
        """Move the scale after all optimizers have stepped. ArgumentError if none has been unscaled or stepped."""
        if not self.enabled:
            return
        if not self._seen:
            raise ArgumentError("GradScaler: update() without a step(): no gradients were looked at")
        self._settle()
        finite = [seen.finite for seen in self._seen.values()]
        self._seen.clear()
        self._after(functools.partial(self._unknown.extend, finite))
        if not any(isinstance(f, Flag) for f in finite):
            self._settle()

    def _after(self, note: Callable[[], None]) -> None:
        """Do it now, or after each replay of the graph that is being captured."""
        captured = capture.current()
        if captured is None:
            note()
        else:
            captured.after.append(note)

    def _settle(self) -> None:
        """Move the scale by what the last update saw, which a GPU may have found out only after it."""
        if not self._unknown:
            return
        finite = all(self._unknown)
        self._unknown.clear()
        self._skipped += sum(not stepped for stepped in self._deciding)
        self._deciding.clear()
        if finite:
            self._good_steps += 1
            if self._good_steps == self.growth_interval:
                self._good_steps = 0
                grown = self._scale * self.growth_factor
                self._scale = grown if grown <= float32.max else self._scale
        else:
            self._good_steps = 0
            self._scale = max(self._scale * self.backoff_factor, self.min_scale)

    def state_dict(self) -> dict[str, Any]:
        """The scale, its settings and counts; {} if disabled."""
        if not self.enabled:
            return {}
        self._settle()
        return {
            "scale": self._scale,
            "growth_factor": self.growth_factor,
            "backoff_factor": self.backoff_factor,
            "growth_interval": self.growth_interval,
            "min_scale": self.min_scale,
            "good_steps": self._good_steps,
            "skipped": self.skipped,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken. ArgumentError for the state of a disabled scaler."""
        if not self.enabled:
            return
        if not state:
            raise ArgumentError("GradScaler: the state is that of a disabled scaler")
        self.growth_factor, self.backoff_factor = state["growth_factor"], state["backoff_factor"]
        self.growth_interval, self.min_scale = state["growth_interval"], state["min_scale"]
        self._scale, self._good_steps, self._skipped = state["scale"], state["good_steps"], state["skipped"]
        self._unknown.clear()
        self._deciding.clear()


__all__ = ["GradScaler"]
