"""Delayed scaling: 8-bit floats multiplied by what brought the largest value of earlier steps to the top of their range.

Source: Micikevicius et al., "FP8 formats for deep learning", 2022, and NVIDIA's Transformer Engine.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import Array, Fixed, Float, Format, as_format
from ulpgrad.policy.network import Policy
from ulpgrad.policy.quantizers import Chooser, Grid, learning
from ulpgrad.policy.rounding import largest, on_grid
from ulpgrad.random import Generator


class Scaled(Chooser):
    """A format with a scale for each tensor role at each place: usable where a Policy takes a format.

    scale = largest / amax / 2^margin, where amax is the largest magnitude among the last `history` uses. A tensor is rounded
    with the scale that the uses before it gave (1 at first); uses under `no_grad` leave no trace. An amax that is zero or not
    finite keeps the old scale.
    Values are multiplied in float32, rounded, and the product is divided by the scales afterwards.
    """

    everywhere = False  # a scale belongs to an operand of a product, whose sums are divided by it

    def __init__(self, format: Any, history: int = 1024, margin: int = 0) -> None:
        self.format: Format = as_format(format)
        if not isinstance(self.format, Float | Fixed) or not self.format.signed:
            raise FormatError(f"Scaled: {self.format.name}: expected a float or a fixed-point format with a sign")
        if isinstance(history, bool) or not isinstance(history, int) or history < 1:
            raise ArgumentError(f"Scaled: history={history!r}: expected a whole number of at least 1")
        if not isinstance(margin, int | float) or not math.isfinite(margin):
            raise ArgumentError(f"Scaled: margin={margin!r}: expected a number of binades")
        self.history, self.margin = history, margin

    def __repr__(self) -> str:
        return f"Scaled({self.format.name!r}, history={self.history}, margin={self.margin})"

    def quantizer(self, role: str, rounding: str, overflow: str, generator: Generator) -> Scale:
        """A scale of its own for one place."""
        return Scale(self, role, rounding, overflow, generator)


class Scale:
    """The scale of one tensor role at one place, and the history it comes from."""

    blocks = False

    def __init__(self, of: Scaled, role: str, rounding: str, overflow: str, generator: Generator) -> None:
        self.of, self.role, self.rounding, self.overflow, self.generator = of, role, rounding, overflow, generator
        self.form = of.format
        self.scale = 1.0
        self.amaxes: deque[float] = deque(maxlen=of.history)
        self.amax = 0.0  # the largest of them; NaN if one is

    def round(self, values: Array, axis: int = -1) -> Grid:
        """With the scale of the uses before; then this use enters the history."""
        scale = self.scale
        scaled = values if scale == 1.0 else values * values.dtype.type(scale)
        grid = on_grid(scaled, self.form, self.rounding, self.overflow, self.generator, axis)
        if learning(self.role):
            self._enter(largest(values))
        return Grid(grid, 1.0 / scale, self.form)

    def _enter(self, amax: float) -> None:
        leaving = self.amaxes[0] if len(self.amaxes) == self.of.history else None
        self.amaxes.append(amax)
        if leaving is not None and not leaving < self.amax:
            self.amax = _top(self.amaxes)
        elif not amax <= self.amax:
            self.amax = amax if not math.isnan(self.amax) else self.amax
        if 0 < self.amax < math.inf:
            limit: float = self.form.max  # type: ignore[attr-defined]
            scale = limit / self.amax / 2.0**self.of.margin
            if 2.0**-126 <= scale <= 2.0**126:  # float32 holds it and its reciprocal
                self.scale = float(np.float32(scale))

    def state_dict(self) -> dict[str, Any]:
        return {"scale": self.scale, "amaxes": list(self.amaxes)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        scale = float(state["scale"])
        if not 0 < scale < math.inf:
            raise ArgumentError(f"DelayedScaling: scale={scale!r}: expected a positive number")
        self.scale = scale
        self.amaxes = deque(state["amaxes"], maxlen=self.of.history)
        self.amax = _top(self.amaxes)


def _top(amaxes: Iterable[float]) -> float:
    """The largest; NaN if one is."""
    found = list(amaxes)
    return math.nan if any(map(math.isnan, found)) else max(found, default=0.0)


class DelayedScaling(Policy):
    """Products in 8-bit floats with delayed scaling ("hybrid": e4m3 forward, e5m2 backward).

        scaling = ug.policy.DelayedScaling()
        for x, y in batches:
            with scaling:
                loss = ug.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()

    Weights and inputs of matmul, linear, conv2d and attention are rounded to `forward`, gradients that enter their backward to
    `backward`, each multiplied by a scale of its own (`Scaled`); sums are float32, and so is everything else. A place is known
    by the weight that is used there, or else by the order of calls in a block: enter the block once a step. Overflow
    saturates. `state_dict()` holds scales and histories.
    """

    def __init__(
        self,
        forward: Any = "float8_e4m3fn",
        backward: Any = "float8_e5m2",
        history: int = 1024,
        margin: int = 0,
        **options: Any,
    ) -> None:
        ahead, back = Scaled(forward, history, margin), Scaled(backward, history, margin)
        super().__init__(weight=ahead, activation=ahead, gradient=back, bias=None, **options)


__all__ = ["DelayedScaling", "Scaled"]
