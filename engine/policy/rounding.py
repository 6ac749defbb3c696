"""Values to a format's grid, as policies do it: by the `fake_quantize` ladder, and with the policy's own random words."""

from __future__ import annotations

import numpy as np

from ulpgrad import dispatch
from ulpgrad.formats import Array, Format, float32, float64
from ulpgrad.formats.rounding import RANDOM_BITS
from ulpgrad.kernels.quantize import spec
from ulpgrad.ops.quantize import fake_quantize
from ulpgrad.random import Generator
from ulpgrad.tensor import Tensor


def carrier(values: Array) -> Format:
    """The format of an array that policies work on: float32 or float64."""
    return float64 if values.dtype == np.float64 else float32


def on_grid(values: Array, form: Format, rounding: str, overflow: str, generator: Generator, axis: int = -1) -> Array:
    """Values of a float32 or float64 array rounded to a format, in the same type; blocks lie along `axis`.

    FormatError for NaN into a format without it. Stochastic rounding takes as many words as there are values.
    """
    wide = carrier(values)
    if form.kind == "block":
        out: Tensor = fake_quantize(Tensor(values, wide), form, rounding=rounding, generator=generator, axis=axis)
        blocked: Array = out.storage
        return blocked
    key, counter = generator.reserve(values.size) if rounding == "stochastic" else (0, 0)
    options = {
        "dtype": form, "rounding": rounding, "overflow": overflow, "subnormals": True, "key": key, "counter": counter,
        "random_bits": RANDOM_BITS,
    }  # fmt: skip
    rounded: Array = dispatch.call(spec.fake_quantize, (wide,), (values,), options)[0]
    return rounded


def largest(values: Array) -> float:
    """The largest magnitude: 0 of nothing, NaN if there is one."""
    return max(float(values.max()), -float(values.min())) if values.size else 0.0
