"""Rounding on the bits in parallel loops: the significand is shifted to units of the last place, and what falls out decides.
One loop for every float, one for fixed point, one for blocks. Next limit: 64-bit lanes, half as many as 32-bit ones."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ulpgrad.formats import Array, Block, Fixed, Float, float32, float64, int8, uint8
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.quantize import spec
from ulpgrad.kernels.quantize.grid import (
    MODE,
    as_stored,
    back,
    block_refusal,
    carry_from,
    grid,
    has_nan,
    refusal,
    rows,
    table,
)
from ulpgrad.kernels.random.numba_blocks import random_bits as random_words
from ulpgrad.kernels.registry import Request, kernel

CHUNK = 1 << 14
EVEN, AWAY, ZERO, UP, DOWN, ODD, STOCHASTIC = range(7)
assert list(MODE) == ["nearest_even", "nearest_away", "toward_zero", "up", "down", "to_odd", "stochastic"]


@jit(inline="always")
def _whole(significand: Any, shift: Any, negative: Any, mode: int, word: Any, bits: Any) -> Any:
    """significand / 2^shift as a whole number; the significand is below 2^61."""
    by = min(shift, 62)
    low, rest = significand >> by, significand & ((1 << by) - 1)
    if mode == EVEN:
        return (significand + (1 << (by - 1)) - 1 + (low & 1)) >> by
    if mode == AWAY:
        return (significand + (1 << (by - 1))) >> by
    if mode == ZERO:
        return low
    if mode in (UP, DOWN):
        return low + (1 if rest != 0 and negative == (mode == DOWN) else 0)
    if mode == ODD:
        return low | (1 if rest != 0 else 0)
    drop = min(shift - bits, 62)  # the fraction to `bits` digits, ties to even
    if drop > 0:
        digits = (rest + (1 << (drop - 1)) - 1 + ((rest >> drop) & 1)) >> drop
    else:
        digits = rest << -drop
    return low + ((digits + (np.int64(word) >> (32 - bits))) >> bits)


@jit(parallel=True)
def _encode(x: Any, out: Any, words: Any, mode: int, bits: int, mantissa: int, lowest: int, field: int, limits: Any,
            table: Any) -> None:  # fmt: skip
    """`field`: mantissa bits of the source, whose bits `x` holds; limits: max_code, kept_from, sign; table: a pair of codes
    each for zero, past the largest, infinity, NaN."""
    size, guard = x.size, 60 - field
    infinity = ((1 << (8 if field == 23 else 11)) - 1) << field
    for chunk in prange((size + CHUNK - 1) // CHUNK):
        for i in range(chunk * CHUNK, min(size, (chunk + 1) * CHUNK)):
            whole = np.int64(x[i])
            negative = whole >> (31 if field == 23 else 63) & 1
            magnitude = whole & (0x7FFFFFFF if field == 23 else 0x7FFFFFFFFFFFFFFF)
            exponent: Any = max(magnitude >> field, 1)
            significand = (magnitude - ((exponent - 1) << field)) << guard
            above = max(exponent - lowest, 0)
            shift = field + guard - mantissa + max(lowest - exponent, 0)
            word = words[i] if mode == STOCHASTIC else np.uint32(0)
            code = (above << mantissa) + _whole(significand, shift, negative == 1, mode, word, bits)
            if code < limits[1]:
                code = 0
            full = code | (limits[2] if negative == 1 else 0)
            if code == 0:
                full = table[0, negative]
            if code > limits[0]:
                full = table[1, negative]
            if magnitude >= infinity:
                full = table[2, negative]
            if magnitude > infinity:
                full = table[3, negative]
            elif limits[2] == 0 and negative == 1 and magnitude != 0:
                full = table[1, 1]
            out[i] = full


@jit(inline="always")
def _whole_value(magnitude: Any, negative: Any, mode: int, word: Any, bits: Any) -> Any:
    """A magnitude below 2^52 as a whole number."""
    low = np.floor(magnitude)
    fraction = magnitude - low
    if mode == EVEN:
        return np.rint(magnitude)
    if mode == AWAY:
        return low + (1.0 if fraction >= 0.5 else 0.0)
    if mode == ZERO:
        return low
    if mode in (UP, DOWN):
        return low + (1.0 if fraction > 0.0 and negative == (mode == DOWN) else 0.0)
    if mode == ODD:
        return low + (1.0 if fraction > 0.0 and np.int64(low) & 1 == 0 else 0.0)
    drawn = np.float64(word >> np.uint32(32 - bits))
    return low + (1.0 if np.rint(fraction * 2.0**bits) + drawn >= 2.0**bits else 0.0)


@jit(parallel=True)
def _fixed(
    x: Any, out: Any, words: Any, mode: int, bits: int, scale: float, low: float, high: float, modulus: float
) -> int:
    """Saturates, or with a modulus wraps; returns how many values have no code."""
    wild, size = 0, x.size
    for i in prange(size):
        value: Any = np.float64(x[i])
        magnitude: Any = abs(value) * scale
        negative = value < 0
        if not (magnitude < np.inf or (modulus == 0.0 and magnitude == magnitude)):
            wild += 0 if modulus != 0.0 and abs(value) < np.inf else 1
            magnitude = 0.0
        if modulus != 0.0:
            magnitude -= np.floor(magnitude / modulus) * modulus
        else:
            magnitude = min(magnitude, high + 1.0)
        near = _whole_value(magnitude, negative, mode, words[i] if mode == STOCHASTIC else np.uint32(0), bits)
        code = -near if negative else near
        if modulus != 0.0:
            code = code - np.floor((code - low) / modulus) * modulus
        out[i] = np.int64(min(max(code, low), high))
    return wild


@jit(inline="always")
def _scale_exponent(magnitude: Any, largest: Any, carry_from: Any) -> Any:
    """The exponent of a block's scale from the bits of its largest magnitude and the largest element's exponent."""
    below = 0
    while magnitude < 1 << 52 and below < 52:  # subnormal in float64: doubling is a shift
        magnitude, below = magnitude << 1, below + 1
    fraction = magnitude & ((1 << 52) - 1)
    exponent = max(magnitude >> 52, 1) - 1023 - below + (1 if fraction >= carry_from else 0) - largest
    return min(max(exponent, -127), 127)


@jit(parallel=True)
def _blocks(x: Any, whole: Any, codes: Any, scales: Any, words: Any, mode: int, bits: int, size: int, largest: int,
            carry_from: int, mantissa: int, lowest: int, limits: Any, step: float, low: float, high: float) -> None:  # fmt: skip
    """Rows of float64 values and their bits. limits as in `_encode`, for float elements; with a step, fixed point."""
    rows, length = x.shape
    per_row = scales.shape[1]
    for block in prange(rows * per_row):
        row, at = block // per_row, block % per_row
        begin, end = at * size, min((at + 1) * size, length)
        most = 0
        for i in range(begin, end):
            most = max(most, whole[row, i] & 0x7FFFFFFFFFFFFFFF)
        if most >= 0x7FF0000000000000:
            scales[row, at] = 255
            codes[row, begin:end] = 0
            continue
        exponent = _scale_exponent(most, largest, carry_from) if most > 0 else -127
        scales[row, at] = exponent + 127
        first, factor = lowest + exponent, 2.0**-exponent / step if step > 0.0 else 0.0
        for i in range(begin, end):
            word = words[row * length + i] if mode == STOCHASTIC else np.uint32(0)
            negative = whole[row, i] < 0
            if step > 0.0:
                near = _whole_value(min(abs(x[row, i]) * factor, high + 1.0), negative, mode, word, bits)
                codes[row, i] = np.int64(min(max(-near if negative else near, low), high))
                continue
            magnitude = whole[row, i] & 0x7FFFFFFFFFFFFFFF
            field = max(magnitude >> 52, 1)
            significand = (magnitude - ((field - 1) << 52)) << 8
            shift = 60 - mantissa + max(first - field, 0)
            code = (max(field - first, 0) << mantissa) + _whole(significand, shift, negative, mode, word, bits)
            code = 0 if code < limits[1] else min(code, limits[0])
            codes[row, i] = code | (limits[2] if negative else 0)


@cache
def _constants(form: Float, rounding: str, overflow: str | None, subnormals: bool) -> tuple[Array, Array]:
    known = grid(form, rounding, overflow, subnormals)
    limits = np.array([known.max_code, known.kept_from, known.sign], np.int64)
    return limits, np.array([known.zero, known.beyond, known.infinity, known.nan], np.int64)


def words_for(rounding: str, key: int, counter: int, size: int) -> Array:
    """The random words of a stochastic rounding; of others nothing."""
    if rounding != "stochastic":
        return np.zeros(0, np.uint32)
    drawn: Array = random_words(key=key, counter=counter, size=size)
    return drawn


def float_codes(x: Array, form: Float, rounding: str, overflow: str | None, subnormals: bool, key: int, counter: int,
                random_bits: int) -> Array | None:  # fmt: skip
    """Codes in the format's storage; None where its own `encode` will raise."""
    wide = x if x.dtype == np.float64 or form.min_exponent >= -126 else x.astype(np.float64)
    field, bias = (23, 127) if wide.dtype == np.float32 else (52, 1023)
    limits, table = _constants(form, rounding, overflow, subnormals)
    out = np.empty(x.shape, np.uint32)  # one width, narrowed after: each width of results would be compiled apart
    words = words_for(rounding, key, counter, x.size)
    _encode(wide.reshape(-1).view(f"u{wide.itemsize}"), out.reshape(-1), words, MODE[rounding], random_bits,
            form.mantissa_bits, form.min_exponent + bias, field, limits, table)  # fmt: skip
    codes = out.astype(f"u{form.itemsize}", copy=False)
    return None if form.nan_code is None and has_nan(x, codes, form) else as_stored(codes, form)


def _fixed_codes(x: Array, form: Fixed, rounding: str, overflow: str | None, subnormals: bool, key: int, counter: int,
                 random_bits: int) -> Array | None:  # fmt: skip
    out = np.empty(x.shape, np.int32)
    words = words_for(rounding, key, counter, x.size)
    modulus = 2.0**form.bits if overflow == "wrap" else 0.0
    wild = _fixed(x.reshape(-1), out.reshape(-1), words, MODE[rounding], random_bits, 2.0**form.fraction_bits,
                  float(form.min_code), float(form.max_code), modulus)  # fmt: skip
    return None if wild else out.astype(form.storage, copy=False)


def _where(request: Request) -> str | None:
    form, overflow = request.params["dtype"], request.params["overflow"]
    if isinstance(form, Float) and overflow == "raise":
        return "does not look for values to refuse (overflow='raise')"
    return refusal(form, overflow)


def _codes(x: Array, dtype: Any, **given: Any) -> Array:
    made = (float_codes if isinstance(dtype, Float) else _fixed_codes)(x, dtype, **given)
    return np.asarray(spec.encoded(x, dtype=dtype, **given)) if made is None else made


@kernel(spec.quantize, "cpu/numba-bits", rank=20, formats=[float32, float64], where=_where, contiguous=True)
def quantize(x: Array, *, dtype: Any, **given: Any) -> Array:
    return _codes(x, dtype, **given)


@kernel(spec.fake_quantize, "cpu/numba-bits", rank=20, formats=[float32, float64], where=_where, contiguous=True)
def fake_quantize(x: Array, *, dtype: Any, **given: Any) -> Array:
    values: Array = dtype.decode(_codes(x, dtype, **given))
    return values.astype(x.dtype, copy=False)


def _where_blocks(request: Request) -> str | None:
    x, params = request.arrays[0], request.params
    if params["rounding"] == "stochastic" and params["axis"] % x.ndim != x.ndim - 1:
        return "draws random words in the order of memory: stochastic rounding wants blocks on the last axis"
    return block_refusal(params["dtype"])


@kernel(spec.block_quantize, "cpu/numba-bits", rank=20, formats=[float32, float64], where=_where_blocks)
def block_quantize(x: Array, *, dtype: Block, axis: int, rounding: str, overflow: str | None, subnormals: bool, key: int,
                   counter: int, random_bits: int) -> tuple[Array, Array]:  # fmt: skip
    element = dtype.element
    flat, shape = rows(x, axis)
    wide = flat.astype(np.float64)
    codes = np.empty(wide.shape, element.storage)
    scales = np.empty((wide.shape[0], -(-wide.shape[1] // dtype.size)), np.uint8)
    words = words_for(rounding, key, counter, x.size)
    if isinstance(element, Float):
        kind = (
            element.mantissa_bits,
            element.min_exponent + 1023,
            _constants(element, "nearest_even", "saturate", subnormals)[0],
        )
        fixed = 0.0, 0.0, 0.0
    else:
        kind = 0, 0, np.zeros(3, np.int64)
        fixed = element.scale, float(element.min_code), float(element.max_code)
    _blocks(wide, wide.view(np.int64), codes, scales, words, MODE[rounding], random_bits, dtype.size, dtype.max_exponent,
            carry_from(dtype), *kind, *fixed)  # fmt: skip
    return back(codes, shape, axis), back(scales, shape, axis)


@jit(parallel=True)
def _values_of_blocks(codes: Any, scales: Any, table: Any, powers: Any, out: Any, size: int) -> None:
    rows, length = codes.shape
    for row in prange(rows):
        for i in range(length):
            out[row, i] = table[codes[row, i]] * powers[scales[row, i // size]]


@kernel(
    spec.block_dequantize, "cpu/numba-bits", rank=20, formats=[uint8, int8], idea="Two tables, of elements and scales."
)
def block_dequantize(codes: Array, scales: Array, *, dtype: Block, axis: int) -> Array:
    flat, shape = rows(codes.view(np.uint8), axis)
    powers = np.ldexp(1.0, np.arange(256) - 127).astype(np.float32)
    powers[255] = np.nan
    out = np.empty(flat.shape, np.float32)
    _values_of_blocks(flat, rows(scales, axis)[0], table(dtype.element), powers, out, dtype.size)
    return back(out, shape, axis)
