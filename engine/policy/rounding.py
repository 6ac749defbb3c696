"""Values to a format's grid, as policies do it: by the `fake_quantize` ladder, and with the policy's own random words."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.formats import Array, Block, BlockArray, Format, as_format, float32, float64
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
    if isinstance(form, Block):
        return values_of(in_blocks(values, form, rounding, generator, axis), form, values.dtype)
    options = _options(values, form, rounding, overflow, generator)
    rounded: Array = dispatch.call(spec.fake_quantize, (carrier(values),), (values,), options)[0]
    return rounded


def in_blocks(values: Array, form: Block, rounding: str, generator: Generator, axis: int) -> BlockArray:
    """The same as codes and scales."""
    options = _options(values, form, rounding, None, generator) | {"axis": -1}
    lines = contiguous(values.swapaxes(axis, -1)) if values.ndim else values
    codes, scales = dispatch.call(spec.block_quantize, (carrier(values),), (lines,), options)[0]
    return BlockArray(codes.swapaxes(axis, -1), scales.swapaxes(axis, -1), axis % values.ndim, form.size)


def values_of(blocks: BlockArray, form: Block, kind: Any) -> Array:
    """What blocks stand for, in an array of a type, lying as they do."""
    codes, scales = (part.swapaxes(blocks.axis, -1) for part in (blocks.codes, blocks.scales))
    kinds = as_format(codes.dtype), as_format(scales.dtype)
    rounded: Array = dispatch.call(spec.block_dequantize, kinds, (codes, scales), {"dtype": form, "axis": -1})[0]
    return rounded.swapaxes(blocks.axis, -1).astype(kind, copy=False)


def _options(values: Array, form: Format, rounding: str, overflow: str | None, generator: Generator) -> dict[str, Any]:
    key, counter = generator.reserve(values.size) if rounding == "stochastic" else (0, 0)
    return {
        "dtype": form, "rounding": rounding, "overflow": overflow, "subnormals": True, "key": key, "counter": counter,
        "random_bits": RANDOM_BITS,
    }  # fmt: skip


def contiguous(values: Array) -> Array:
    return values if values.flags.c_contiguous else copied(values)


def largest(values: Array) -> float:
    """The largest magnitude: 0 of nothing, NaN if there is one."""
    return max(float(values.max()), -float(values.min())) if values.size else 0.0
