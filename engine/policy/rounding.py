"""Values to a format's grid, as policies do it: by the `fake_quantize` ladder, and with the policy's own random words."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.formats import Array, Format, float32, float64
from ulpgrad.formats.rounding import RANDOM_BITS
from ulpgrad.kernels.copy import copied
from ulpgrad.kernels.quantize import spec
from ulpgrad.random import Generator


def carrier(values: Array) -> Format:
    """The format of an array that policies work on: float32 or float64."""
    return float64 if values.dtype == np.float64 else float32


def on_grid(values: Array, form: Format, rounding: str, overflow: str, generator: Generator, axis: int = -1) -> Array:
    """Values of a float32 or float64 array rounded to a format, in the same type; blocks lie along `axis`.

    FormatError for NaN into a format without it. Stochastic rounding takes as many words as there are values, in the order of
    blocks.
    """
    wide = carrier(values)
    key, counter = generator.reserve(values.size) if rounding == "stochastic" else (0, 0)
    options: dict[str, Any] = {
        "dtype": form, "rounding": rounding, "overflow": overflow, "subnormals": True, "key": key, "counter": counter,
        "random_bits": RANDOM_BITS,
    }  # fmt: skip
    rounded: Array
    if form.kind == "block":
        options |= {"axis": -1, "overflow": None}
        lines = contiguous(values.swapaxes(axis, -1)) if values.ndim else values
        (codes, scales), kinds = dispatch.call(spec.block_quantize, (wide,), (lines,), options)
        rounded, _ = dispatch.call(spec.block_dequantize, kinds, (codes, scales), {"dtype": form, "axis": -1})
        return rounded.swapaxes(axis, -1).astype(values.dtype, copy=False)
    rounded, _ = dispatch.call(spec.fake_quantize, (wide,), (values,), options)
    return rounded


def contiguous(values: Array) -> Array:
    return values if values.flags.c_contiguous else copied(values)


def largest(values: Array) -> float:
    """The largest magnitude: 0 of nothing, NaN if there is one."""
    return max(float(values.max()), -float(values.min())) if values.size else 0.0
