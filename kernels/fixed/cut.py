"""How an exact integer becomes a code: fraction bits dropped under a rounding, then a limit to the word, saturating or
wrapping. Every fixed-point operation ends in one such cut, so that it rounds once.

The functions here take NumPy arrays of Python integers (dtype object, any width: the reference) or of int64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ulpgrad.formats import INTEGERS, Array, Fixed, Format
from ulpgrad.formats.rounding import RANDOM_BITS, ROUNDINGS

WIDTHS = (32, 64, 128)
UNBOUNDED = 0  # no machine integer holds the intermediate values: Python's do


@dataclass(frozen=True)
class Cut:
    """From exact integers in units of 2^-drop codes to codes.

    - `low`, `high`: the smallest and the largest code; `out`: the integer format that codes are stored in.
    - `drop`: fraction bits that go (negative: zeros that come). `rounding`: one of `formats.rounding.ROUNDINGS`; stochastic
      rounding draws the upper `random_bits` bits of a uint32 word per value.
    - `wrap`: whether what does not fit wraps; else it saturates. `report`: whether a second result says which did not fit.
    - `least`, `most`: bounds on the exact integers and on all that a kernel meets on the way to them.
    """

    drop: int
    low: int
    high: int
    out: Format
    rounding: str = "nearest_even"
    wrap: bool = False
    random_bits: int = RANDOM_BITS
    report: bool = False
    least: int = 0
    most: int = 0

    @cached_property
    def width(self) -> int:
        """Bits of the narrowest signed integers that hold every intermediate value: 32, 64, 128 or UNBOUNDED."""
        largest = max(-self.least - 1, self.most, 0)
        if self.drop < 0:
            largest = (largest + 1) << -self.drop
        elif self.drop:
            largest += 1 << self.drop
        if self.rounding == "stochastic":
            largest = max(largest, 1 << (max(self.drop, 0) + self.random_bits + 1))
        span = self.high - self.low if self.wrap else max(self.high, -self.low - 1)
        needed = max(largest + (max(-self.low, self.high) if self.wrap else 0), span).bit_length() + 1
        return next((w for w in WIDTHS if needed <= w), UNBOUNDED)

    @cached_property
    def plain(self) -> bool:
        """Whether it rounds to nearest even, if at all, and reports nothing."""
        return not self.report and (self.drop <= 0 or self.rounding == "nearest_even")

    @cached_property
    def fields(self) -> tuple[Any, ...]:
        """What C++ is told, in the order in which `call_of` in csrc/cpu/fixed.cpp reads it."""
        mode = ROUNDINGS.index(self.rounding)
        return self.drop, mode, self.wrap, self.random_bits, self.low, self.high, self.width, self.out.storage


def cut_to(
    form: Fixed,
    fraction: int,
    least: int,
    most: int,
    *,
    rounding: str = "nearest_even",
    overflow: str = "saturate",
    random_bits: int = RANDOM_BITS,
    report: bool = False,
) -> Cut:
    """The cut that takes integers in units of 2^-fraction, from `least` to `most`, to codes of a format.

    `overflow="raise"` saturates and reports: who called raises. Where all bits go and more, dropping them is the same.
    """
    drop = fraction - form.fraction_bits
    bits = max(-least - 1, most, 0).bit_length() + 2
    drop = min(drop, bits + (random_bits if rounding == "stochastic" else 0))
    out = next(f for f in INTEGERS if f.storage == form.storage)
    return Cut(
        drop,
        form.min_code,
        form.max_code,
        out,
        rounding,
        overflow == "wrap",
        random_bits,
        report or overflow == "raise",
        least,
        most,
    )


def dropped(v: Array, cut: Cut, words: Array | None) -> Array:
    """Without the fraction bits, rounded. Shifts to the right round down; each mode says what comes on top."""
    if cut.drop <= 0:
        return v << -cut.drop
    one, half = 1 << cut.drop, 1 << (cut.drop - 1)
    floor = v >> cut.drop
    match cut.rounding:
        case "nearest_even":
            return (v + (half - 1) + (floor & 1)) >> cut.drop
        case "nearest_away":
            return (v + half - (v < 0)) >> cut.drop
        case "toward_zero":
            return np.where(v < 0, (v + (one - 1)) >> cut.drop, floor)
        case "up":
            return (v + (one - 1)) >> cut.drop
        case "down":
            return floor
        case "to_odd":
            return floor | ((v & (one - 1)) != 0)
    size = np.abs(v)
    up = _drawn(size & (one - 1), one, cut.random_bits, words)
    return np.where(v < 0, -1, 1) * ((size >> cut.drop) + up)


def _drawn(part: Array, whole: Any, bits: int, words: Array | None) -> Array:
    """Whether stochastic rounding goes up at a fraction part / whole, which is taken to `bits` bits, ties to even."""
    assert words is not None
    scaled = part << bits
    count = scaled // whole
    rest = 2 * (scaled - count * whole)
    count = count + ((rest > whole) | ((rest == whole) & (count & 1 == 1)))
    drawn = (words >> np.uint32(32 - bits)).astype(count.dtype)
    return (count + drawn) >= (1 << bits)


def quotient(v: Array, divisor: Array, cut: Cut, words: Array | None) -> Array:
    """v / divisor rounded to a whole number. The divisor is not zero."""
    floor = v // divisor
    rest, size = np.abs(v - floor * divisor), np.abs(divisor)
    negative = (v < 0) != (divisor < 0)
    match cut.rounding:
        case "nearest_even":
            up = (2 * rest > size) | ((2 * rest == size) & (floor & 1 == 1))
        case "nearest_away":
            up = (2 * rest > size) | ((2 * rest == size) & ~negative)
        case "toward_zero":
            up = negative & (rest != 0)
        case "up":
            up = rest != 0
        case "down":
            return floor
        case "to_odd":
            return floor | (rest != 0)
        case _:
            magnitude = np.abs(v) // size
            up = _drawn(np.abs(v) - magnitude * size, size, cut.random_bits, words)
            return np.where(negative, -1, 1) * (magnitude + up)
    return floor + up


def limited(v: Array, cut: Cut) -> tuple[Array, Array | None]:
    """Codes, and which values did not fit (None unless asked for)."""
    outside = (v < cut.low) | (v > cut.high) if cut.report else None
    if cut.wrap:
        codes = ((v - cut.low) & (cut.high - cut.low)) + cut.low
    else:
        codes = np.minimum(np.maximum(v, cut.low), cut.high)
    return codes.astype(cut.out.storage), None if outside is None else outside.astype(np.bool_)


def applied(v: Array, cut: Cut, words: Array | None) -> Any:
    """A whole cut: codes, and with `report` where they do not stand for the value."""
    codes, outside = limited(dropped(v, cut, words), cut)
    return codes if outside is None else (codes, outside)
