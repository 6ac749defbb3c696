"""Rounding: from values counted in units of the last place to whole units, in any mode.

Works on magnitudes in float64, where a value and its fraction are exact. Directions are those of IEEE 754-2019, section 4.3;
to-odd is von Neumann's, after which rounding once more is as good as rounding once (Boldo and Melquiond, 2008).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ulpgrad.errors import ArgumentError

Array = np.ndarray[Any, np.dtype[Any]]

ROUNDINGS = ("nearest_even", "nearest_away", "toward_zero", "up", "down", "to_odd", "stochastic")
RANDOM_BITS = 24  # of a stochastic rounding unless told otherwise: a float32's worth


class Random(NamedTuple):
    """What stochastic rounding draws from: uint32 words of the shape of the values, of which the upper `bits` count."""

    words: Array
    bits: int = RANDOM_BITS


@dataclass
class Counts:
    """What conversions did to values: `overflowed` past the largest finite value, `underflowed` to zero, `flushed` from a
    subnormal code to zero by request, and how many were `nan`."""

    overflowed: int = 0
    underflowed: int = 0
    flushed: int = 0
    nan: int = 0
    values: int = 0


def check(rounding: str, bits: int = RANDOM_BITS) -> str:
    """The mode itself; ArgumentError if there is none of that name, or for a number of random bits outside 1 to 32."""
    if rounding not in ROUNDINGS:
        raise ArgumentError(f"rounding={rounding!r}: expected one of {', '.join(ROUNDINGS)}")
    if not 1 <= bits <= 32:
        raise ArgumentError(f"random_bits={bits!r}: expected 1 to 32")
    return rounding


def whole_units(
    units: Array, negative: Array, rounding: str, random: Random | None = None, lowest: Array | int = 0
) -> Array:
    """Magnitudes in units of the last place, as whole float64 numbers.

    `negative` says where the value is below zero (up and down are not symmetric). `lowest` is what is added to a whole number
    to give the code whose last bit decides ties and to-odd: its parity matters only. Stochastic rounding takes the fraction
    to the number of random bits, ties to even, and goes up if that plus the random number reaches 1: its mean is right to
    these bits.
    """
    low = np.floor(units)
    fraction = units - low
    odd = np.mod(low + lowest, 2) == 1
    match check(rounding):
        case "nearest_even":
            up = (fraction > 0.5) | ((fraction == 0.5) & odd)
        case "nearest_away":
            up = fraction >= 0.5
        case "toward_zero":
            return low
        case "up":
            up = (fraction > 0) & ~negative
        case "down":
            up = (fraction > 0) & negative
        case "to_odd":
            up = (fraction > 0) & ~odd
        case _:
            if random is None:
                raise ArgumentError(
                    "rounding='stochastic': no random words given; pass generator= or Random(words, bits)"
                )
            check(rounding, random.bits)
            drawn = (np.asarray(random.words) >> np.uint32(32 - random.bits)).reshape(units.shape)
            up = np.rint(np.ldexp(fraction, random.bits)) + drawn >= 2.0**random.bits
    return np.asarray(low + up)


def round_to_odd(whole: Array) -> Array:
    """Integers as float64 such that rounding once more is as good as rounding once: from 2^53 on, where float64 has gaps,
    bits that would be lost leave one bit set."""
    if whole.dtype.itemsize < 8:
        return whole.astype(np.float64)
    low = whole & whole.dtype.type(4095)
    sticky = (whole - low) | ((low != 0).astype(whole.dtype) << whole.dtype.type(11))
    exact = (whole < 2**53) & ((whole > -(2**53)) if whole.dtype.kind == "i" else True)
    return np.where(exact, whole, sticky).astype(np.float64)


__all__ = ["RANDOM_BITS", "ROUNDINGS", "Counts", "Random", "check", "round_to_odd", "whole_units"]
