"""GradScaler: a factor on the loss keeps small gradients from vanishing in float16.

Source: Micikevicius et al., "Mixed precision training", ICLR 2018.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ulpgrad.device import beside
from ulpgrad.dispatch import convert
from ulpgrad.errors import ArgumentError
from ulpgrad.formats import compute_format, float32
from ulpgrad.ops.creation import astype
from ulpgrad.tensor import Tensor

if TYPE_CHECKING:
    from ulpgrad.optim.optimizer import Optimizer


@dataclass
class _Seen:
    """What the scaler knows of one optimizer since the last update."""

    unscaled: bool = False
    finite: bool = True
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
        self.skipped = 0
        self._scale = float(init_scale)
        self._good_steps = 0
        self._seen: defaultdict[int, _Seen] = defaultdict(_Seen)

    def get_scale(self) -> float:
        """What losses are multiplied by now."""
        return self._scale if self.enabled else 1.0

    def scale(self, loss: Tensor) -> Tensor:
        """The loss, multiplied; a 16-bit loss becomes float32, which can hold the product."""
        return astype(loss, compute_format(loss.dtype), copy=False) * self._scale if self.enabled else loss

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of an optimizer's parameters by the scale. ArgumentError if that was done already."""
        if not self.enabled:
            return
        seen = self._seen[id(optimizer)]
        if seen.unscaled:
            raise ArgumentError(
                "GradScaler: the optimizer's gradients are unscaled already; call update() after step()"
            )
        inverse = 1.0 / self._scale
        finite: list[Any] = []  # read when all has been asked for, so that a GPU is waited for once
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    form = compute_format(p.grad.dtype)
                    wide = p.grad.storage if form is p.grad.dtype else convert(p.grad.storage, p.grad.dtype, form)
                    with beside(wide):
                        p.grad = Tensor(wide * form.storage.type(inverse), form)
                        finite.append(np.isfinite(p.grad.storage).all())
        seen.finite = all(map(bool, finite))
        seen.unscaled = True

    def step(self, optimizer: Optimizer) -> bool:
        """Unscale if that is not done yet, then step unless a gradient is not finite. Returns whether it stepped.

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
        if seen.finite:
            optimizer.step()
        else:
            self.skipped += 1
        return seen.finite

    def update(self) -> None:
        """Move the scale after all optimizers have stepped. ArgumentError if none has been unscaled or stepped."""
        if not self.enabled:
            return
        if not self._seen:
            raise ArgumentError("GradScaler: update() without a step(): no gradients were looked at")
        if all(seen.finite for seen in self._seen.values()):
            self._good_steps += 1
            if self._good_steps == self.growth_interval:
                self._good_steps = 0
                grown = self._scale * self.growth_factor
                self._scale = grown if grown <= float32.max else self._scale
        else:
            self._good_steps = 0
            self._scale = max(self._scale * self.backoff_factor, self.min_scale)
        self._seen.clear()

    def state_dict(self) -> dict[str, Any]:
        """The scale, its settings and counts; {} if disabled."""
        if not self.enabled:
            return {}
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
        self._scale, self._good_steps, self.skipped = state["scale"], state["good_steps"], state["skipped"]


__all__ = ["GradScaler"]
