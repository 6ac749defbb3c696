"""Codes and values of any format inside Triton kernels: rounding on the bits, by integers alone, as csrc/cpu/quantize.h does.

A magnitude is shifted to units of the last place of the target and what falls out decides; codes are ordered as values are, so
that a carry into the exponent is right by itself. Values of float32 to nearest even stay in 32-bit registers.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np

from ulpgrad.formats import Array, Float, Format, Integer, bool_
from ulpgrad.formats.codes import TABLE_BITS, table
from ulpgrad.kernels import capture, gpu
from ulpgrad.kernels.quantize.grid import MODE, grid
from ulpgrad.kernels.triton_launch import tl, triton

EVEN, AWAY, ZERO, UP, DOWN, ODD, STOCHASTIC = (tl.constexpr(i) for i in range(7))
assert list(MODE) == ["nearest_even", "nearest_away", "toward_zero", "up", "down", "to_odd", "stochastic"]

# How values are read from storage
PLAIN, SHIFTED, TABLE, WIDE = (tl.constexpr(i) for i in range(4))


def refusal(form: Format) -> str | None:
    """Why `float_code` does not round to a float, or None."""
    if not isinstance(form, Float):
        return f"rounds to floats, not to {form.kind} formats"
    if form.bits > 32:
        return f"makes codes of at most 32 bits, not {form}"
    return None if form.min_exponent >= -1022 else f"wants a range inside that of float64, unlike {form}"


@cache
def constants(form: Float, rounding: str = "nearest_even", overflow: str | None = None, subnormals: bool = True) -> Any:
    """What `float_code` takes as GRID."""
    known = grid(form, rounding, overflow, subnormals)
    kept_from = known.kept_from if form.has_zero else 0
    by_code = form.mantissa_bits == 0 and form.specials.startswith("p3109")  # ties go by the code's last bit
    return (known.mantissa_bits, known.min_exponent, known.max_code, kept_from, known.sign, int(form.has_zero), int(by_code),
            *known.zero, *known.beyond, *known.infinity, *known.nan)  # fmt: skip


def registers(form: Float, rounding: str, source: Any) -> tuple[bool, bool]:
    """Whether values of this NumPy type go through float64, and whether `float_code` then needs 64-bit registers."""
    double = bool(source != np.float32 or form.min_exponent < -126)
    return double, double or form.bits > 31


def reading(form: Format) -> tuple[Any, ...]:
    """How stored values of a format are read: KIND and DECODE of `value_of`."""
    if not isinstance(form, Float) or form.is_native:
        return PLAIN.value, ()
    if form.specials == "ieee" and form.exponent_bits == 8 and form.bias == 127:
        return SHIFTED.value, (23 - form.mantissa_bits,)
    if form.bits <= TABLE_BITS:
        return TABLE.value, ((1 << form.bits) - 1,)
    infinity = -1 if form.inf_code is None else form.inf_code
    sign = form.exponent_bits + form.mantissa_bits if form.signed else -1
    return WIDE.value, (form.mantissa_bits, form.bias, form.max_code, infinity, sign, int(form.has_negative_zero))


def values_on_device(form: Format) -> Any:
    """The table that `value_of` looks values up in; of formats that are read otherwise, a single zero."""
    return capture.kept(_values_on(form, *gpu.queue()))


@lru_cache(256)
def _values_on(form: Format, index: int, stream: int) -> Any:
    looked_up = isinstance(form, Float) and reading(form)[0] == TABLE.value
    values: Array = table(form) if looked_up and isinstance(form, Float) else np.zeros(1, np.float32)
    return capture.constant(values, index)


def carries(form: Format) -> Any:
    """The NumPy type that `value_of` gives."""
    if isinstance(form, (Integer, type(bool_))):
        return form.storage
    assert isinstance(form, Float)
    return np.dtype(np.float32) if form.storage == np.float16 else form.carrier


def computes(carried: Any) -> Any:
    """The NumPy type that `as_float` makes of values of this one, unless float64 is asked for."""
    return np.dtype(np.float32 if carried == np.float32 or carried.itemsize < 4 else np.float64)


@triton.jit
def value_of(stored, table, mask, KIND: tl.constexpr, DECODE: tl.constexpr):
    """What stored codes are worth: float32 or float64; integers and bools as they are."""
    if KIND == SHIFTED:
        value = (stored.to(tl.uint32) << DECODE[0]).to(tl.float32, bitcast=True)
    elif KIND == TABLE:
        value = tl.load(table + (stored.to(tl.int32) & DECODE[0]), mask=mask, other=0)
    elif KIND == WIDE:
        value = _wide_value(stored, DECODE)
    elif stored.dtype == tl.float16:
        value = stored.to(tl.float32)
    else:
        value = stored
    return value


@triton.jit
def _wide_value(stored, DECODE: tl.constexpr):
    """By arithmetic, for formats with too many codes to list."""
    M: tl.constexpr = DECODE[0]
    size = stored.to(tl.int64)
    if DECODE[4] >= 0:
        size = size & ((1 << DECODE[4]) - 1)
        negative = ((stored.to(tl.int64) >> DECODE[4]) & 1) != 0
    else:
        negative = size < 0
    exponent = size >> M
    units = (size & ((1 << M) - 1)) + ((exponent > 0).to(tl.int64) << M)
    power = ((tl.maximum(exponent, 1) - DECODE[1] - M + 1023) << 52).to(tl.float64, bitcast=True)
    value = units.to(tl.float64) * power
    value = tl.where(size > DECODE[2], float("nan"), value)
    value = tl.where(size == DECODE[3], float("inf"), value)
    if DECODE[5] == 0:
        value = tl.where((size == 0) & negative, float("nan"), value)
    return (value * tl.where(negative, -1.0, 1.0)).to(tl.float32)  # `-value` is 0 - value in Triton 3.6


@triton.jit
def whole(significand, shift, negative, parity, word, MODE: tl.constexpr, BITS: tl.constexpr, MOST: tl.constexpr):
    """significand / 2^shift as a whole number. `parity` is added to a whole number before its last bit decides; the significand
    has two bits less than its type, and shifts beyond MOST, which leave nothing, are shifts by MOST."""
    by = tl.minimum(shift, MOST)
    one = tl.full([], 1, significand.dtype)
    low = significand >> by
    rest = significand & ((one << by) - 1)
    if MODE == EVEN:
        found = (significand + (one << (by - 1)) - 1 + ((low + parity) & 1)) >> by
    elif MODE == AWAY:
        found = (significand + (one << (by - 1))) >> by
    elif MODE == ZERO:
        found = low
    elif MODE == UP:
        found = low + ((rest != 0) & (negative == 0)).to(significand.dtype)
    elif MODE == DOWN:
        found = low + ((rest != 0) & (negative != 0)).to(significand.dtype)
    elif MODE == ODD:
        found = low + ((rest != 0) & (((low + parity) & 1) == 0)).to(significand.dtype)
    else:  # the fraction to BITS digits, ties to even; up if it reaches 1 with the random number added
        drop = tl.minimum(shift - BITS, MOST)
        right = tl.maximum(drop, 1)
        short = (rest + (one << (right - 1)) - 1 + ((rest >> right) & 1)) >> right
        digits = tl.where(drop > 0, short, rest << tl.maximum(-drop, 0))
        drawn = word >> (32 - BITS)
        if significand.dtype == tl.int64:
            found = low + ((digits + drawn.to(tl.int64)) >> BITS)
        elif BITS < 31:
            found = low + ((digits + drawn.to(tl.int32)) >> BITS)
        else:  # the sum would reach the sign: its carry is told by what is left of it; digits themselves are fewer than 1
            top = digits.to(tl.uint32) << (32 - BITS)
            found = low + (top + (drawn << (32 - BITS)) < top).to(tl.int32)
    return found


@triton.jit
def float_code(x, word, GRID: tl.constexpr, MODE: tl.constexpr, BITS: tl.constexpr, WIDE_WORDS: tl.constexpr):
    """(codes, where NaN was given, where a value is beyond the range or infinite) of float32 or float64 values, rounded once.
    GRID comes from `constants`."""
    M: tl.constexpr = GRID[0]
    is_single: tl.constexpr = x.dtype == tl.float32
    FIELD: tl.constexpr = 23 if is_single else 52
    LOWEST: tl.constexpr = GRID[1] + (127 if is_single else 1023)
    INFINITY: tl.constexpr = 0x7F800000 if is_single else 0x7FF0000000000000
    GUARD: tl.constexpr = (60 if WIDE_WORDS else 29) - FIELD
    MOST: tl.constexpr = 62 if WIDE_WORDS else 31
    bits = x.to(tl.int32, bitcast=True) if is_single else x.to(tl.int64, bitcast=True)
    if WIDE_WORDS:
        bits = bits.to(tl.int64)
    negative = bits < 0
    magnitude = bits & (0x7FFFFFFF if is_single else 0x7FFFFFFFFFFFFFFF)
    exponent = tl.maximum(magnitude >> FIELD, 1)
    significand = (magnitude - ((exponent - 1) << FIELD)) << GUARD
    above = tl.maximum(exponent - LOWEST, 0)
    shift = FIELD + GUARD - M + tl.maximum(LOWEST - exponent, 0)
    parity = above * GRID[6]
    code = (above << M) + whole(significand, shift, negative, parity, word, MODE, BITS, MOST)
    if GRID[5] == 0:  # the format has no zero: its first code is its smallest value
        code = tl.maximum(code - (1 << M), 0)
        is_zero = magnitude == 0
    else:
        code = tl.where(code < GRID[3], 0, code)
        is_zero = code == 0
    full = tl.where(negative, code | GRID[4], code)
    full = tl.where(is_zero, tl.where(negative, GRID[8], GRID[7]), full)
    full = tl.where(code > GRID[2], tl.where(negative, GRID[10], GRID[9]), full)
    if GRID[4] == 0:
        full = tl.where(negative & (magnitude != 0), GRID[10], full)
    full = tl.where(magnitude == INFINITY, tl.where(negative, GRID[12], GRID[11]), full)
    is_nan = magnitude > INFINITY
    full = tl.where(is_nan, tl.where(negative, GRID[14], GRID[13]), full)
    return full, is_nan, ((code > GRID[2]) | (magnitude == INFINITY)) & (is_nan == 0)


@triton.jit
def upper_code(x, DROP: tl.constexpr):
    """Codes of float32 values in a format that is the upper part of float32, as bfloat16 is, to nearest even."""
    bits = x.to(tl.uint32, bitcast=True)
    rounded = (bits + ((1 << (DROP - 1)) - 1) + ((bits >> DROP) & 1)) >> DROP
    nan = (bits >> DROP) | (1 << (22 - DROP))
    return tl.where((bits & 0x7FFFFFFF) > 0x7F800000, nan, rounded)


@triton.jit
def _to_odd(whole):
    """64-bit integers as float64 such that rounding once more is as good as rounding once: what is lost leaves a bit set."""
    low = whole & 4095
    sticky = (whole - low) | ((low != 0).to(whole.dtype) << 11)
    if whole.dtype == tl.int64:
        exact = (whole < (1 << 53)) & (whole > -(1 << 53))
    else:
        exact = whole < (1 << 53)
    return tl.where(exact, whole, sticky).to(tl.float64)


@triton.jit
def as_float(value, DOUBLE: tl.constexpr):
    """What `float_code` takes of a value: small integers become float32, larger ones float64; float64 if asked for."""
    if DOUBLE and value.dtype == tl.float32:
        found = value.to(tl.float64)
    elif value.dtype == tl.float32 or value.dtype == tl.float64:
        found = value
    elif value.dtype == tl.int64 or value.dtype == tl.uint64:
        found = _to_odd(value)
    elif DOUBLE or value.dtype == tl.int32 or value.dtype == tl.uint32:
        found = value.to(tl.float64)
    else:
        found = value.to(tl.float32)
    return found
