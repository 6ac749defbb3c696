"""Rounding as straight-line code on whole numbers, which LLVM turns into vectors: what differs between modes and formats is a
number, not a branch. Helpers of this family's Numba rungs; values of float32 stay in 32-bit lanes."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ulpgrad.formats import Float
from ulpgrad.kernels.numba_jit import PerFormat, jit
from ulpgrad.kernels.numba_math import BITS, LAST_BIT, MANTISSA, SIZE, T
from ulpgrad.kernels.quantize.grid import grid

ONE, ZERO = (PerFormat(np.int32(v), np.int64(v)) for v in (1, 0))
FARTHEST = PerFormat(np.int32(25), np.int64(62))  # shifted so far, a significand leaves at most its sign
INFINITY = PerFormat(np.int32(0x7F800000), np.int64(0x7FF0000000000000))

# How a mode rounds, as `rounded` takes it: of what falls out, `near` halves are added where `always`, the sign and the last
# digit that stays agree; and one more where `carry`, if the last digit is odd or `tie` says so.
MODES: dict[str, tuple[int, ...]] = {  # near, always, by_sign, by_digit, tie, carry
    "nearest_even": (1, -1, 0, 0, 0, 1),
    "nearest_away": (1, -1, 0, 0, 1, 1),
    "toward_zero": (0, 0, 0, 0, 0, 0),
    "up": (0, -1, -1, 0, 0, 0),
    "down": (0, 0, -1, 0, 0, 0),
    "to_odd": (0, 0, 0, -1, 0, 0),
}


@jit(forceinline=True)
def rounded(significand: Any, by: Any, sign: Any, mode: Any) -> Any:
    """significand / 2^by as a whole number; `sign`: all bits where the value is negative."""
    near, always, by_sign, by_digit, tie, carry = mode
    by, near = BITS(min(by, FARTHEST) & LAST_BIT), BITS(near & LAST_BIT)  # shifts by less than a lane need no wider one
    rest = BITS(BITS(ONE << by) - ONE)
    digit = BITS(BITS(significand >> by) & ONE)
    chosen = BITS(always ^ BITS(sign & by_sign) ^ BITS(BITS(digit - ONE) & by_digit))
    more = BITS(BITS(rest >> near) & chosen) + BITS(BITS(digit | tie) & carry)
    return BITS(BITS(significand + more) >> by)


@jit(forceinline=True)
def drawn(significand: Any, by: Any, word: Any, bits: Any) -> Any:
    """The same, up where the fraction's first `bits` digits (ties to even) and those of the word reach 1; in 64 bits."""
    near = min(by, 62)
    low, rest = significand >> near, significand & ((1 << near) - 1)
    over, under = min(max(by - bits, 0), 62), max(bits - by, 0)
    digits = (rest + (((1 << over) - 1) >> 1) + ((rest >> over) & min(over, 1))) >> over
    return low + (((digits << under) + (np.int64(word) >> (32 - bits))) >> bits)


@jit(forceinline=True)
def field_of(size: Any) -> Any:
    """The exponent's field; of subnormal numbers that of the smallest normal ones."""
    return max(BITS(size >> MANTISSA), ONE)


@jit(forceinline=True)
def significand_of(size: Any, field: Any) -> Any:
    return BITS(size - BITS(BITS(field - ONE) << MANTISSA))


@jit(forceinline=True)
def shift_of(field: Any, first: Any, digits: Any) -> Any:
    """Bits of a significand that have no place. `first`: the field of the target's smallest normal number."""
    return BITS(BITS(MANTISSA - digits) + max(BITS(first - field), ZERO))


@jit(forceinline=True)
def finished(whole: Any, size: Any, sign: Any, field: Any, first: Any, limits: Any, table: Any) -> Any:
    """The code of a rounded significand. limits, table: see `constants`."""
    digits, kept_from, largest, sign_bit, refused = limits
    zero, zero_too, beyond, beyond_too, infinity, infinity_too, nan, nan_too = table
    code = BITS(BITS(max(BITS(field - first), ZERO) << BITS(digits & LAST_BIT)) + whole)
    code = ZERO if code < kept_from else code
    full = BITS(code | BITS(sign & sign_bit))
    full = BITS(zero ^ BITS(sign & zero_too)) if code == ZERO else full
    full = BITS(beyond ^ BITS(sign & beyond_too)) if code > largest else full
    full = BITS(infinity ^ BITS(sign & infinity_too)) if size >= INFINITY else full
    full = BITS(beyond ^ beyond_too) if BITS(sign & refused) & min(size, ONE) else full
    return BITS(nan ^ BITS(sign & nan_too)) if size > INFINITY else full


@jit(forceinline=True)
def encoded(value: Any, first: Any, mode: Any, limits: Any, table: Any) -> Any:
    """The code of a value, rounded by a mode."""
    bits = T(value).view(BITS)
    sign, size = BITS(bits >> LAST_BIT), BITS(bits & SIZE)
    field = field_of(size)
    whole = rounded(significand_of(size, field), shift_of(field, first, limits[0]), sign, mode)
    return finished(whole, size, sign, field, first, limits, table)


@jit(forceinline=True)
def encoded_by(word: Any, random_bits: Any, value: Any, first: Any, limits: Any, table: Any) -> Any:
    """The code of a value, rounded by a random word."""
    bits = T(value).view(BITS)
    sign, size = BITS(bits >> LAST_BIT), BITS(bits & SIZE)
    field = field_of(size)
    whole = drawn(significand_of(size, field), shift_of(field, first, limits[0]), word, random_bits)
    return finished(whole, size, sign, field, first, limits, table)


@cache
def constants(form: Float, rounding: str, overflow: str | None, subnormals: bool, kind: Any) -> tuple[Any, Any]:
    """(limits, table) of `finished` as whole numbers of a width: mantissa bits, the smallest and largest code that stand, the
    sign bit and whether there is none; then, each for positive values and what negative ones change in it, the codes for
    zero, for what lies past the largest, for infinity and for NaN."""
    known = grid(form, rounding, overflow, subnormals)
    limits = known.mantissa_bits, known.kept_from, known.max_code, known.sign, int(known.sign == 0)
    pairs = (known.zero, known.beyond, known.infinity, known.nan)
    table = [code for positive, negative in pairs for code in (positive, positive ^ negative)]
    return tuple(map(kind, limits)), tuple(map(kind, table))


# How a mode rounds whole numbers out of float64, as `rounded_whole` takes it: up where the fraction is past a limit (by sign:
# none reaches 2), and the last digit even or `any_digit`; or where it is just a half, by `tie`: 0 never, 1 if odd, 2 always.
WHOLE: dict[str, tuple[float, ...]] = {  # limit, limit of negative values, any_digit, tie
    "nearest_even": (0.5, 0.5, 1.0, 1.0),
    "nearest_away": (0.5, 0.5, 1.0, 2.0),
    "toward_zero": (2.0, 2.0, 1.0, 0.0),
    "up": (0.0, 2.0, 1.0, 0.0),
    "down": (2.0, 0.0, 1.0, 0.0),
    "to_odd": (0.0, 0.0, 0.0, 0.0),
}


@jit(forceinline=True)
def rounded_whole(magnitude: Any, is_negative: Any, mode: Any) -> Any:
    """A magnitude below 2^52 as a whole number."""
    limit, negative_limit, any_digit, tie = mode
    low = np.floor(magnitude)
    fraction, half = magnitude - low, low * 0.5
    digit = (half - np.floor(half)) * 2.0
    past = fraction > (negative_limit if is_negative else limit)
    up = (past & (digit < any_digit + 0.5)) | ((fraction == 0.5) & (digit + tie > 1.5))
    return low + (1.0 if up else 0.0)


@jit(forceinline=True)
def drawn_whole(magnitude: Any, word: Any, drop: Any, unit: Any) -> Any:
    """The same, up where the fraction in `unit` parts (ties to even) and the word without its last `drop` bits reach 1."""
    low = np.floor(magnitude)
    digits = np.rint((magnitude - low) * unit) + np.float64(word >> drop)
    return low + (1.0 if digits >= unit else 0.0)
