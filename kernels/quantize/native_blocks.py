"""Blocks in C++: the largest magnitude of 32 values by one vector sweep, then their codes with the element's exponent range
moved by the scale, so that nothing is multiplied. Blocks on another axis than the last are moved there and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array, Block, Float, float32, float64, int8, uint8
from ulpgrad.kernels import native
from ulpgrad.kernels.quantize import spec
from ulpgrad.kernels.quantize.counts import native_grid
from ulpgrad.kernels.quantize.grid import back, block_refusal, carry_from, options, rows, table
from ulpgrad.kernels.registry import kernel


@kernel(spec.block_quantize, "cpu/native-blocks", rank=50, formats=[float32, float64], where=block_refusal)
def block_quantize(x: Array, *, dtype: Block, axis: int, rounding: str, overflow: str | None, subnormals: bool, key: int,
                   counter: int, random_bits: int) -> tuple[Array, Array]:  # fmt: skip
    element = dtype.element
    known: Any = (
        native_grid(element, "nearest_even", "saturate", subnormals)
        if isinstance(element, Float)
        else (element.fraction_bits, element.bits)
    )
    mode, stream = options(rounding, counter, key, random_bits)
    flat, shape = rows(x, axis)
    codes, scales = native.module().quantize_blocks(
        flat, known, dtype.max_exponent, carry_from(dtype), dtype.size, mode, stream
    )
    return back(codes.view(element.storage), shape, axis), back(scales, shape, axis)


@kernel(spec.block_dequantize, "cpu/native-blocks", rank=50, formats=[uint8, int8])
def block_dequantize(codes: Array, scales: Array, *, dtype: Block, axis: int) -> Array:
    flat, shape = rows(codes.view(np.uint8), axis)
    out: Array = native.module().dequantize_blocks(flat, rows(scales, axis)[0], table(dtype.element), dtype.size, False)
    return back(out, shape, axis)
