"""Mixed precision: `autocast` chooses the format each op computes in, `GradScaler` keeps small gradients from vanishing.

The choice is a table of op names. While an autocast block is active, dispatch passes every op's operands through it; at
other times nothing is looked at. Source: Micikevicius et al., "Mixed precision training", ICLR 2018.
"""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ulpgrad import autograd, dispatch
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import Format, as_format, bfloat16, compute_format, float32, float64
from ulpgrad.kernels.cast import convert
from ulpgrad.ops.creation import astype
from ulpgrad.tensor import Tensor

if TYPE_CHECKING:
    from ulpgrad.optim.optimizer import Optimizer

# Products, whose kernels accumulate in float32: operands go to the low format.
LOW = frozenset({"matmul", "linear", "conv2d", "attention"})
# Sums and exponentials, which need range or many digits: 16-bit operands go to float32. All other ops follow their operands.
WIDE = frozenset({
    "sum", "prod", "mean", "var", "cumulative_sum", "cumulative_prod", "softmax", "log_softmax", "layer_norm", "rms_norm",
    "batch_norm", "cross_entropy", "nll_loss", "mse_loss", "bce_with_logits",
})  # fmt: skip


class autocast(contextlib.ContextDecorator):
    """Compute products in a 16-bit format, and what is delicate in float32.

        with ug.autocast(ug.bfloat16):
            loss = ug.cross_entropy(model(x), y)
        loss.backward()

    matmul, linear, conv2d and attention take and give `format`; reductions, norms, softmax and losses take and give
    float32; everything else follows its operands. Ops with a float64 operand are left alone. Backward computes in the
    formats of forward, wherever it is called. A parameter is converted once per block, or again after it is written to.
    Blocks nest; `enabled=False` switches the policy off inside another's. Holds for this thread (context) only.
    Raises FormatError unless `format` is a 16-bit float.
    """

    def __init__(self, format: Any = bfloat16, enabled: bool = True) -> None:
        self.format: Format = as_format(format)
        if self.format.kind != "float" or self.format.bits != 16:
            raise FormatError(f"autocast: expected bfloat16 or float16, got {self.format.name}")
        self.enabled = enabled
        self._cache: dict[int, tuple[Tensor, int, Tensor]] = {}
        self._tokens: list[Any] = []

    def _recreate_cm(self) -> autocast:
        return autocast(self.format, self.enabled)  # calls of a decorated function may overlap, in several threads

    def __enter__(self) -> autocast:
        self._tokens.append(dispatch.operand_policy.set(self._operands if self.enabled else None))
        dispatch.state.count(policies=1)
        return self

    def __exit__(self, *_: object) -> None:
        dispatch.state.count(policies=-1)
        dispatch.operand_policy.reset(self._tokens.pop())
        if not self._tokens:
            self._cache.clear()

    def _operands(self, name: str, tensors: tuple[Any, ...]) -> tuple[Any, ...]:
        target = self.format if name in LOW else float32 if name in WIDE else None
        if target is None or autograd.is_in_backward() or any(t is not None and t.dtype is float64 for t in tensors):
            return tensors
        return tuple(t if t is None or t.dtype.kind != "float" else self._as(t, target) for t in tensors)

    def _as(self, t: Tensor, target: Format) -> Tensor:
        """A tensor in a format; of a parameter in the low format, the same one as long as it is good."""
        if t.dtype is target or target is not self.format or not (t.requires_grad and t.is_leaf):
            return astype(t, target, copy=False)
        version = t._version_cell()[0]
        known = self._cache.get(id(t))
        if known is not None and known[1] == version and self._serves(known[2]):
            return known[2]
        cast = astype(t, self.format)
        self._cache[id(t)] = t, version, cast
        return cast

    @staticmethod
    def _serves(cast: Tensor) -> bool:
        """Whether a cast made earlier records gradients if and only if they are recorded now, in a graph still there."""
        if not autograd.is_grad_enabled():
            return not cast.requires_grad
        return cast._node is not None and not cast._node[0].freed


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
        for group in optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    form = compute_format(p.grad.dtype)
                    wide = p.grad.storage if form is p.grad.dtype else convert(p.grad.storage, p.grad.dtype, form)
                    values = np.asarray(wide * form.storage.type(inverse))
                    p.grad = Tensor(values, form)
                    seen.finite = seen.finite and bool(np.isfinite(values).all())
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


__all__ = ["GradScaler", "autocast"]
