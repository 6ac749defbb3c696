"""Blocks: the largest magnitude of 32 values, then their codes with the element's exponents moved by the scale, both in vectors.
Blocks on another axis than the last are moved there and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array, Block, Float, float32, float64, int8, uint8
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.numba_math import BITS, SIZE, T
from ulpgrad.kernels.quantize import spec
from ulpgrad.kernels.quantize.grid import back, block_refusal, carry_from, rows, table
from ulpgrad.kernels.quantize.numba_round import (
    MODES,
    WHOLE,
    ZERO,
    constants,
    drawn_whole,
    encoded,
    encoded_by,
    rounded_whole,
)
from ulpgrad.kernels.random.numba_blocks import random_bits as random_words
from ulpgrad.kernels.registry import kernel

INFINITY_BITS = 0x7FF0000000000000
LIFT = 60  # powers of two by which values of the smallest blocks grow, so that subnormal ones become normal


@jit(forceinline=True)
def _largest(x: Any) -> Any:
    """The largest magnitude, or NaN, as bits of float64."""
    most = ZERO
    for i in range(len(x)):
        most = max(most, BITS(T(x[i]).view(BITS) & SIZE))
    return np.float64(BITS(most).view(T)).view(np.int64)


@jit()
def _exponent(most: Any, largest: Any, carry_from: Any) -> Any:
    """The exponent of a block's scale from the bits of its largest magnitude and its largest element's exponent."""
    below = 0
    while 0 < most < 1 << 52:  # subnormal: doubling is a shift
        most, below = most << 1, below + 1
    carry = 1 if most & ((1 << 52) - 1) >= carry_from else 0
    return min(max((most >> 52) - 1023 - below + carry - largest, -127), 127)


@jit(parallel=True)
def _floats(x: Any, codes: Any, scales: Any, size: int, largest: int, carry_from: int, lowest: int, mode: Any, words: Any,
            random_bits: int, limits: Any, table: Any) -> None:  # fmt: skip
    """lowest: the field of an element's smallest normal number; random_bits: 0 where nothing is drawn."""
    length, per_row = x.shape[1], scales.shape[1]
    for block in prange(scales.size):
        row, at = block // per_row, block % per_row
        begin, end = at * size, min((at + 1) * size, length)
        line, out = x[row, begin:end], codes[row, begin:end]
        most = _largest(line)
        exponent = _exponent(most, largest, carry_from)
        up = LIFT if lowest + exponent < 1 else 0
        first, factor = BITS(lowest + exponent + up), T(1 << up)
        scales[row, at] = exponent + 127
        if most >= INFINITY_BITS:
            scales[row, at] = 255
            out[:] = 0
        elif random_bits:
            drawn_here = words[row * length + begin : row * length + end]
            for i in range(len(line)):
                out[i] = encoded_by(drawn_here[i], random_bits, line[i] * factor, first, limits, table)
        else:
            for i in range(len(line)):
                out[i] = encoded(line[i] * factor, first, mode, limits, table)


@jit(parallel=True)
def _fixed(x: Any, codes: Any, scales: Any, size: int, largest: int, carry_from: int, per_unit: float, low: float,
           high: float, mode: Any, words: Any, random_bits: int) -> None:  # fmt: skip
    length, per_row, drop, unit = x.shape[1], scales.shape[1], np.uint32(32 - random_bits), 2.0**random_bits
    for block in prange(scales.size):
        row, at = block // per_row, block % per_row
        begin, end = at * size, min((at + 1) * size, length)
        line, out = x[row, begin:end], codes[row, begin:end]
        most = _largest(line)
        exponent = _exponent(most, largest, carry_from)
        factor = np.int64((1023 - exponent) << 52).view(np.float64) * per_unit
        scales[row, at] = exponent + 127
        if most >= INFINITY_BITS:
            scales[row, at] = 255
            out[:] = 0
        elif random_bits:
            drawn_here = words[row * length + begin : row * length + end]
            for i in range(len(line)):
                value = np.float64(line[i])
                whole = drawn_whole(min(abs(value) * factor, high + 1.0), drawn_here[i], drop, unit)
                out[i] = np.int64(min(max(-whole if value < 0.0 else whole, low), high))
        else:
            for i in range(len(line)):
                value = np.float64(line[i])
                whole = rounded_whole(min(abs(value) * factor, high + 1.0), value < 0.0, mode)
                out[i] = np.int64(min(max(-whole if value < 0.0 else whole, low), high))


@kernel(spec.block_quantize, "cpu/numba-blocks", rank=20, formats=[float32, float64], where=block_refusal)
def block_quantize(x: Array, *, dtype: Block, axis: int, rounding: str, overflow: str | None, subnormals: bool, key: int,
                   counter: int, random_bits: int) -> tuple[Array, Array]:  # fmt: skip
    element, is_drawn = dtype.element, rounding == "stochastic"
    flat, shape = rows(x, axis)
    if isinstance(element, Float) and not (element.min_exponent >= 1 - LIFT and element.mantissa_bits < 23):
        flat = flat.astype(np.float64, copy=False)
    codes = np.empty(flat.shape, np.uint8)
    scales = np.empty((len(flat), -(-flat.shape[1] // dtype.size)), np.uint8)
    words = random_words(key=key, counter=counter, size=x.size) if is_drawn else np.empty(0, np.uint32)
    blocks = flat, codes, scales, dtype.size, dtype.max_exponent, carry_from(dtype)
    random = words, random_bits if is_drawn else 0
    if isinstance(element, Float):
        kind, bias = (np.int32, 127) if flat.dtype == np.float32 else (np.int64, 1023)
        known = constants(element, "nearest_even", "saturate", subnormals, kind)
        mode = tuple(map(kind, MODES["nearest_even" if is_drawn else rounding]))
        _floats(*blocks, element.min_exponent + bias, mode, *random, *known)
    else:
        mode = WHOLE["nearest_even" if is_drawn else rounding]
        _fixed(*blocks, 1 / element.scale, float(element.min_code), float(element.max_code), mode, *random)
    return back(codes.view(element.storage), shape, axis), back(scales, shape, axis)


@jit(parallel=True)
def _values_of_blocks(codes: Any, scales: Any, table: Any, powers: Any, out: Any, size: int) -> None:
    """A block's power of two times its elements' values."""
    per_row, length = scales.shape[1], codes.shape[1]
    for block in prange(scales.size):
        row, at = block // per_row, block % per_row
        begin, end = at * size, min((at + 1) * size, length)
        line, values, power = codes[row, begin:end], out[row, begin:end], powers[scales[row, at]]
        for i in range(len(line)):
            values[i] = table[line[i]] * power


@kernel(
    spec.block_dequantize,
    "cpu/numba-blocks",
    rank=20,
    formats=[uint8, int8],
    idea="Two tables, of elements and scales.",
)
def block_dequantize(codes: Array, scales: Array, *, dtype: Block, axis: int) -> Array:
    flat, shape = rows(codes.view(np.uint8), axis)
    powers = np.ldexp(1.0, np.arange(256) - 127).astype(np.float32)
    powers[255] = np.nan
    out = np.empty(flat.shape, np.float32)
    _values_of_blocks(flat, rows(scales, axis)[0], table(dtype.element), powers, out, dtype.size)
    return back(out, shape, axis)
