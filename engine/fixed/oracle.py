"""The definition of fixed-point results in Python's own integers and fractions, one value at a time: what tests compare with."""

from __future__ import annotations

from fractions import Fraction

from ulpgrad.errors import FormatError
from ulpgrad.formats import Fixed
from ulpgrad.formats.rounding import check


def unit(form: Fixed) -> Fraction:
    """The distance of neighbouring values."""
    n = form.fraction_bits
    return Fraction(1, 1 << n) if n >= 0 else Fraction(1 << -n)


def value(code: int, form: Fixed) -> Fraction:
    """What a code stands for, exactly."""
    return int(code) * unit(form)


def code(
    exact: Fraction,
    form: Fixed,
    rounding: str = "nearest_even",
    overflow: str = "saturate",
    draw: tuple[int, int] = (0, 24),
) -> int:
    """The code of an exact value. `draw`: for stochastic rounding, the random number and its bits."""
    return limited(rounded(exact / unit(form), rounding, draw), form, overflow)


def rounded(units: Fraction, rounding: str = "nearest_even", draw: tuple[int, int] = (0, 24)) -> int:
    """A value in units of the last place as a whole number."""
    check(rounding)
    floor = units.numerator // units.denominator
    rest = units - floor
    if rounding == "stochastic":
        number, bits = draw
        size, sign = abs(units), -1 if units < 0 else 1
        whole = size.numerator // size.denominator
        return sign * (whole + (rounded((size - whole) * (1 << bits)) + number >= 1 << bits))
    ups = {
        "nearest_even": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and floor % 2 == 1),
        "nearest_away": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and floor >= 0),
        "toward_zero": rest > 0 and floor < 0,
        "up": rest > 0,
        "down": False,
        "to_odd": rest > 0 and floor % 2 == 0,
    }
    return floor + ups[rounding]


def limited(whole: int, form: Fixed, overflow: str = "saturate") -> int:
    """A whole number of units within the word: saturated, wrapped, or FormatError."""
    if form.min_code <= whole <= form.max_code:
        return whole
    if overflow == "raise":
        raise FormatError(f"{whole} is outside {form.name}")
    if overflow == "wrap":
        return (whole - form.min_code) % (form.max_code - form.min_code + 1) + form.min_code
    return form.max_code if whole > 0 else form.min_code
