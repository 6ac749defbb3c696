"""Codes of floats: what each is worth, and which one a value rounds to.

Magnitude codes are ordered as their values are, so rounding carries into the exponent by itself. Values go through float64,
which holds every value of every format here, and are rounded once.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ulpgrad.errors import FormatError
from ulpgrad.formats.rounding import Counts, Random, round_to_odd, whole_units

if TYPE_CHECKING:
    from ulpgrad.formats.floating import Float

Array = np.ndarray[Any, np.dtype[Any]]
TABLE_BITS = 16  # formats up to this size are decoded by looking up


def value(form: Float, code: int) -> float:
    """What a magnitude code (without sign) is worth, if it is that of a finite number."""
    exponent, fraction = code >> form.mantissa_bits, code & ((1 << form.mantissa_bits) - 1)
    if not form.has_zero:
        return math.ldexp(1.0 + fraction / (1 << form.mantissa_bits), exponent - form.bias)
    leading = 1 << form.mantissa_bits if exponent else 0
    return math.ldexp(float(leading + fraction), max(exponent, 1) - form.bias - form.mantissa_bits)


@cache
def table(form: Float) -> Array:
    """The values of all codes, by definition; float32 where that holds them all, else float64."""
    count = 1 << (form.exponent_bits + form.mantissa_bits)
    size = [value(form, code) if code <= form.max_code else math.nan for code in range(count)]
    if form.inf_code is not None:
        size[form.inf_code] = math.inf
    values = np.array(size, np.float64)
    if form.signed:
        below = -values
        if not form.has_negative_zero:
            below[0] = np.nan
        values = np.concatenate([values, below])
    return values.astype(form.carrier)


def exponents(form: Float) -> tuple[int, int, int]:
    """Exponents of the largest and the smallest positive value, and significant digits: what a carrier must hold."""
    m = form.mantissa_bits
    top = (form.max_code >> m) - form.bias if form.max_code >> m or not form.has_zero else 1 - form.bias
    return top, form.min_exponent - (m if form.has_zero else 0), m + 1


def decode(form: Float, stored: Array) -> Array:
    """Each code's value, exactly. Bits above the format's are not looked at."""
    if form.specials == "ieee" and form.exponent_bits == 8 and form.bias == 127:  # the upper part of a float32
        return np.asarray(stored.astype(np.uint32) << np.uint32(23 - form.mantissa_bits)).view(np.float32)
    if form.bits <= TABLE_BITS:
        whole = form.bits == form.storage.itemsize * 8
        return np.asarray(table(form)[stored if whole else stored & form.storage.type((1 << form.bits) - 1)])
    return _decode_wide(form, stored)


def _decode_wide(form: Float, stored: Array) -> Array:
    """The same by arithmetic, for formats with too many codes to list."""
    m = form.mantissa_bits
    size = (stored & form.storage.type((1 << (form.exponent_bits + m)) - 1)).astype(np.int64)
    exponent, fraction = size >> m, size & ((1 << m) - 1)
    leading = np.where(exponent > 0, 1 << m, 0)
    values = np.ldexp((leading + fraction).astype(np.float64), np.maximum(exponent, 1) - form.bias - m)
    values = np.where(size > form.max_code, np.nan, values)
    if form.inf_code is not None:
        values = np.where(size == form.inf_code, np.inf, values)
    negative = (
        (stored >> form.storage.type(form.bits - 1)) & form.storage.type(1) if form.signed else np.zeros_like(stored)
    )
    if not form.has_negative_zero:
        values = np.where((size == 0) & (negative != 0), np.nan, values)
    return np.where(negative != 0, -values, values).astype(form.carrier)


def bfloat16_bits(values: Array) -> Array:
    """float32 to bfloat16, to nearest even: the upper half of the bits."""
    bits = np.ascontiguousarray(values).reshape(values.shape).view(np.uint32)
    rounded = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)
    return np.where(np.isnan(values), (bits >> np.uint32(16)) | np.uint32(0x40), rounded).astype(np.uint16)


def encode(
    form: Float,
    values: Array,
    rounding: str,
    overflow: str,
    subnormals: bool,
    random: Random | None,
    counts: Counts | None,
) -> Array:
    """Codes of real values, rounded once; see `Float.encode`."""
    if form.bits == 64:
        return _encode_float64(form, values, overflow, subnormals, counts)
    wide = round_to_odd(values) if values.dtype.kind in "iu" else values.astype(np.float64)
    m, nan, infinite = form.mantissa_bits, np.isnan(wide), np.isinf(wide)
    negative, size = np.signbit(wide), np.where(np.isfinite(wide), np.abs(wide), 0)
    _, exponent = np.frexp(size)
    exponent = np.where(size == 0, form.min_exponent, np.maximum(exponent - 1, form.min_exponent))
    step = (exponent - form.min_exponent).astype(np.float64) * 2.0**m  # codes below this binade, less one binade
    parity = step if form.specials.startswith("p3109") else 0
    units = whole_units(np.ldexp(size, m - exponent), negative, rounding, random, parity)
    if not form.has_zero:
        units = np.maximum(units - 2.0**m, 0)  # no subnormals: the leading bit counts for nothing
    code = step + units
    over = code > form.max_code
    flushed = (code > 0) & (code < 2.0**m) & (not subnormals and form.has_zero)
    if counts is not None:
        counts.values += wide.size
        counts.nan += int(nan.sum())
        counts.overflowed += int(over.sum())
        counts.underflowed += int(((code == 0) & (size > 0)).sum()) if form.has_zero else 0
        counts.flushed += int(flushed.sum())
    code = np.where(flushed, 0, code)
    if overflow == "raise" and (over | infinite).any():
        at = wide[over | infinite].flat[0]
        raise FormatError(f"{form.name}: {at!s} overflows: it holds {form.min} to {form.max}; scale it first")
    code = _overflowed(form, code, over, infinite, negative, rounding, overflow)
    code = np.asarray(code.astype(np.int64))
    if not form.signed:
        wrong = negative & (size > 0) | (negative & infinite)
        invalid = wrong if form.has_zero else wrong | (size == 0) & ~infinite
        code = np.where(invalid, 0 if overflow == "saturate" else form.nan_code or 0, code)
    if nan.any():
        if form.nan_code is None:
            raise FormatError(f"{form.name} has no NaN, and one was given: replace such values first")
        code = np.where(nan, form.nan_code, code)
    if form.signed:
        bare = ((code == 0) | (code == form.nan_code)) & (not form.has_negative_zero)
        code = code | (negative & ~bare).astype(np.int64) << (form.exponent_bits + m)
    out = code.astype(f"u{form.storage.itemsize}")
    return out.view(form.storage)


def _encode_float64(form: Float, values: Array, overflow: str, subnormals: bool, counts: Counts | None) -> Array:
    """The widest format: nothing rounds but large integers, which go to nearest even."""
    wide = values.astype(np.float64)
    infinite, small = np.isinf(wide), (wide != 0) & (np.abs(wide) < form.smallest_normal)
    if overflow == "raise" and infinite.any():
        raise FormatError(f"{form.name}: an infinity was given, with overflow='raise'")
    if counts is not None:
        counts.values, counts.nan = counts.values + wide.size, counts.nan + int(np.isnan(wide).sum())
        counts.flushed += 0 if subnormals else int(small.sum())
    wide = wide if subnormals else np.where(small, np.copysign(0.0, wide), wide)
    return np.clip(wide, form.min, form.max) if overflow == "saturate" else wide


def _overflowed(
    form: Float, code: Array, over: Array, infinite: Array, negative: Array, rounding: str, overflow: str
) -> Array:
    """Codes with infinities and what lies beyond the largest finite value in their place."""
    special = form.inf_code if form.inf_code is not None else form.nan_code
    beyond = form.max_code if special is None or overflow == "saturate" else special
    lost = overflow == "saturate" and form.specials == "fnuz" and form.nan_code is not None
    endless = form.nan_code if lost else beyond
    clamped = np.zeros_like(over)
    if rounding in ("toward_zero", "to_odd"):
        clamped = over
    elif rounding in ("up", "down"):
        clamped = over & (negative if rounding == "up" else ~negative)
    code = np.where(over, np.where(clamped, form.max_code, beyond), code)
    return np.asarray(np.where(infinite, int(endless or 0), code))


__all__ = ["bfloat16_bits", "decode", "encode", "table", "value"]
