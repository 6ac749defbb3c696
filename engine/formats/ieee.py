"""Codes of any IEEE-like binary float: sign, exponent and mantissa, with infinities, NaN and subnormals.

Whole numbers are ordered as the codes are, so rounding carries into the exponent by itself, up to infinity. Exact as long
as float32 holds every value: at most 8 exponent and 23 mantissa bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
FLOAT32_EXPONENT, FLOAT32_MANTISSA, FLOAT32_BIAS = 8, 23, 127


def decode(codes: Array, exponent_bits: int, mantissa_bits: int) -> Array:
    """Each code's value as float32, exactly. Bits above the format's are not looked at."""
    shift = np.uint32(FLOAT32_MANTISSA - mantissa_bits)
    wide = codes.astype(np.uint32)
    if exponent_bits == FLOAT32_EXPONENT:  # the upper part of a float32
        return np.asarray(wide << shift).view(np.float32)
    sign = (wide >> np.uint32(exponent_bits + mantissa_bits)) << np.uint32(31)
    bias = (1 << (exponent_bits - 1)) - 1
    magnitude = wide & np.uint32((1 << (exponent_bits + mantissa_bits)) - 1)
    infinity, normal = _infinity(exponent_bits, mantissa_bits), 1 << mantissa_bits
    moved = (magnitude << shift) + np.uint32((FLOAT32_BIAS - bias) << FLOAT32_MANTISSA)
    moved = np.where(magnitude >= infinity, (magnitude << shift) | np.uint32(0xFF << FLOAT32_MANTISSA), moved)
    subnormal = magnitude.astype(np.float32) * np.float32(2.0 ** (1 - bias - mantissa_bits))
    return np.asarray(np.where(magnitude < normal, subnormal.view(np.uint32), moved) | sign).view(np.float32)


def encode(values: Array, exponent_bits: int, mantissa_bits: int) -> Array:
    """Codes of real values, rounded once to nearest even, as uint32. What overflows becomes infinity; NaN stays NaN."""
    if values.dtype == np.float32 and exponent_bits == FLOAT32_EXPONENT:
        return _encode_float32(values, mantissa_bits)
    wide = round_to_odd(values) if values.dtype.kind in "iu" else values.astype(np.float64)
    bias, magnitude = (1 << (exponent_bits - 1)) - 1, np.abs(wide)
    finite = np.isfinite(wide)
    magnitude = np.where(finite, magnitude, 0)
    _, exponent = np.frexp(magnitude)
    exponent = np.where(magnitude == 0, 1, np.maximum(exponent - 1 + bias, 1))  # as stored; subnormals share the lowest
    # In units of the last place: up to 2^(m + 1), of which the leading bit counts as one step of the exponent.
    units = np.rint(np.ldexp(magnitude, bias + mantissa_bits - exponent)).astype(np.int64)
    infinity = _infinity(exponent_bits, mantissa_bits)
    codes = np.minimum(((exponent - 1).astype(np.int64) << mantissa_bits) + units, infinity)
    codes = np.where(finite, codes, np.where(np.isnan(wide), infinity | _quiet(mantissa_bits), infinity))
    codes |= np.signbit(wide).astype(np.int64) << (exponent_bits + mantissa_bits)
    return codes.astype(np.uint32)


def _encode_float32(values: Array, mantissa_bits: int) -> Array:
    """The same for 8 exponent bits: the upper part of a float32."""
    drop = np.uint32(FLOAT32_MANTISSA - mantissa_bits)
    bits = np.ascontiguousarray(values).reshape(values.shape).view(np.uint32)
    half = np.uint32((1 << (FLOAT32_MANTISSA - mantissa_bits - 1)) - 1)
    rounded = (bits + (half + ((bits >> drop) & np.uint32(1)))) >> drop
    return np.where(np.isnan(values), (bits >> drop) | np.uint32(_quiet(mantissa_bits)), rounded)


def _infinity(exponent_bits: int, mantissa_bits: int) -> int:
    return ((1 << exponent_bits) - 1) << mantissa_bits


def _quiet(mantissa_bits: int) -> int:
    return 1 << (mantissa_bits - 1)


def round_to_odd(whole: Array) -> Array:
    """Integers as float64 such that rounding once more is as good as rounding once: from 2^53 on, where float64 has gaps,
    bits that would be lost leave one bit set."""
    if whole.dtype.itemsize < 8:
        return whole.astype(np.float64)
    low = whole & whole.dtype.type(4095)
    sticky = (whole - low) | ((low != 0).astype(whole.dtype) << whole.dtype.type(11))
    exact = (whole < 2**53) & ((whole > -(2**53)) if whole.dtype.kind == "i" else True)
    return np.where(exact, whole, sticky).astype(np.float64)
