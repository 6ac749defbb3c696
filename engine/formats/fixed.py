"""Fixed: real fixed-point numbers, an integer times 2^-n."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats.format import Array, Format, interned
from ulpgrad.formats.rounding import Counts, Random, round_to_odd, whole_units

OVERFLOWS = ("saturate", "wrap", "raise")
EXACT = 2.0**53

_made: dict[Any, Fixed] = {}


class Fixed(Format):
    """`Q(m, n)`: m integer bits, not counting the sign, and n fraction bits; `signed=True` adds the sign bit.

    A value is its code, a two's complement or unsigned integer of m + n + signed bits, times 2^-n. Stored in the next of 8,
    16, 32 or 64 bits. m or n may be negative, which leaves bits at the other end away. FormatError for a word of less than 1
    or more than 64 bits. Names: "q7.8", without a sign "uq8.8". (What fxpmath calls Q8.8 counts the sign: it is Q(7, 8).)
    """

    kind = "fixed"
    differentiable = True
    routed = True
    is_native = False

    integer_bits: int
    fraction_bits: int
    signed: bool

    def __new__(cls, integer_bits: int, fraction_bits: int, signed: bool = True) -> Fixed:
        m, n = integer_bits, fraction_bits
        if not all(isinstance(v, int) and not isinstance(v, bool) for v in (m, n)):
            raise FormatError(f"Q({m!r}, {n!r}): expected whole numbers of integer and fraction bits")
        found: Fixed = interned(_made, (m, n, bool(signed)), lambda: cls._make(m, n, bool(signed)))
        return found

    def __init__(self, *_: Any, **__: Any) -> None:
        """Everything is done once, in `_make`."""

    @classmethod
    def _make(cls, m: int, n: int, signed: bool) -> Fixed:
        bits = m + n + signed
        name = f"{'' if signed else 'u'}q{m}.{n}"
        if not 1 + signed <= bits <= 64:
            raise FormatError(
                f"{name}: a word of {bits} bits ({m} integer, {n} fraction{', a sign' if signed else ''}): expected "
                f"{1 + signed} to 64; take fewer bits"
            )
        if not -1000 <= n <= 1000:
            raise FormatError(f"{name}: {n} fraction bits: expected -1000 to 1000, which float64 holds")
        self = super().__new__(cls)
        width = next(w for w in (8, 16, 32, 64) if w >= bits)
        Format.__init__(self, name, bits, f"{'i' if signed else 'u'}{width // 8}")
        self.integer_bits, self.fraction_bits, self.signed = m, n, signed
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Fixed, (self.integer_bits, self.fraction_bits, self.signed)

    @property
    def min_code(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def max_code(self) -> int:
        return (1 << (self.bits - self.signed)) - 1

    @property
    def scale(self) -> float:
        """What a code is multiplied by: 2^-n, the distance of all neighbours."""
        return math.ldexp(1.0, -self.fraction_bits)

    @property
    def eps(self) -> float:
        return self.scale

    @property
    def smallest_normal(self) -> float:
        """The smallest positive value."""
        return self.scale

    @property
    def max(self) -> float:
        """Largest value (over 53 bits: the float64 nearest to it)."""
        return math.ldexp(float(self.max_code), -self.fraction_bits)

    @property
    def min(self) -> float:
        return math.ldexp(float(self.min_code), -self.fraction_bits)

    @property
    def binades(self) -> float:
        """Dynamic range: log2 of the largest over the smallest positive value."""
        return math.log2(self.max_code)

    @property
    def decibels(self) -> float:
        """Dynamic range in dB."""
        return 20 * math.log10(2) * self.binades

    def spacing(self, values: Any) -> Array:
        """Distance between neighbouring codes: the same everywhere."""
        return np.full(np.shape(values), self.scale)

    def values(self) -> Array:
        """All values in order of their codes' bits, float64[2^bits]; FormatError above 16 bits."""
        if self.bits > 16:
            raise FormatError(f"{self.name}: {self.bits} bits have too many codes to list; expected at most 16")
        bits = np.arange(2**self.bits)
        return np.asarray(np.where(bits > self.max_code, bits - 2**self.bits, bits) * self.scale)

    def decode(self, storage: Any) -> Array:
        """Codes times 2^-n: float32 up to 24 bits where it holds them, else float64 (over 53 bits the nearest)."""
        if self.bits <= 24 and -100 <= self.fraction_bits <= 100:
            return np.asarray(np.asarray(storage).astype(np.float32) * np.float32(self.scale))
        return self.exact(storage)

    def exact(self, storage: Any) -> Array:
        """Codes times 2^-n in float64, over 53 bits the nearest."""
        codes = np.asarray(storage).astype(np.float64)
        if -900 <= self.fraction_bits <= 900:  # a normal factor, and normal products: exact, and several times as fast
            return np.asarray(codes * self.scale)
        return np.asarray(np.ldexp(codes, -self.fraction_bits))

    def encode(
        self,
        values: Array,
        rounding: str = "nearest_even",
        overflow: str | None = None,
        subnormals: bool = True,
        random: Random | None = None,
        counts: Counts | None = None,
    ) -> Array:
        """Values to codes, rounded once. `overflow`: "saturate" (the default), "wrap" (modulo 2^bits), "raise".

        NaN raises FormatError; infinities saturate, or raise where overflow is "wrap" or "raise".
        """
        overflow = overflow or "saturate"
        if overflow not in OVERFLOWS:
            raise ArgumentError(f"{self.name}: overflow={overflow!r}: expected one of {', '.join(OVERFLOWS)}")
        if values.dtype.kind in "iub":
            return self._encode_whole(values, rounding, overflow, random, counts)
        wide = values.astype(np.float64)
        if np.isnan(wide).any():
            raise FormatError(f"{self.name} has no NaN, and one was given: replace such values first")
        infinite = np.isinf(wide)
        if overflow != "saturate" and infinite.any():
            raise FormatError(f"{self.name}: an infinity was given: it can only saturate; overflow={overflow!r}")
        size = np.ldexp(np.abs(np.where(infinite, 0, wide)), self.fraction_bits)
        endless = np.isinf(size)  # beyond float64 in units: modulo 2^bits first
        if overflow == "wrap" and endless.any():
            rest = np.fmod(np.abs(wide), math.ldexp(1.0, self.bits - self.fraction_bits))
            size = np.where(endless, np.ldexp(rest, self.fraction_bits), size)
        units = whole_units(size, np.signbit(wide), rounding, random)
        units = np.where(infinite, np.inf, units) * np.where(np.signbit(wide), -1.0, 1.0)
        over = (units > self.max_code) | (units < self.min_code)
        if self.max_code > EXACT:  # float64 does not hold the limits themselves
            over = (units >= float(self.max_code + 1)) | (units < self.min_code)
        over |= endless
        if counts is not None:
            counts.values += wide.size
            counts.overflowed += int((over & ~infinite).sum())
            counts.underflowed += int(((units == 0) & (wide != 0) & ~endless).sum())
        if over.any():
            if overflow == "raise":
                raise FormatError(f"{self.name}: {wide[over].flat[0]!s} overflows: it holds {self.min} to {self.max}")
            if overflow == "wrap":
                return self.wrapped(units)
        inside = np.where(over, 0, units)
        codes = inside.astype(np.int64) if self.signed else inside.astype(np.uint64)
        low, high = codes.dtype.type(self.min_code), codes.dtype.type(self.max_code)
        return np.where(over, np.where(units < 0, low, high), codes).astype(self.storage)

    def wrapped(self, units: Array) -> Array:
        """Whole float64 numbers modulo 2^bits, as codes."""
        rest = np.fmod(units, 2.0**self.bits)  # exact, with the sign of the number
        bits = np.where(rest < 0, 0, rest).astype(np.uint64) - np.where(rest < 0, -rest, 0).astype(np.uint64)
        return self.cut(bits)

    def cut(self, bits: Array) -> Array:
        """The lowest bits of uint64 words, as codes: two's complement, sign-extended."""
        if not self.signed:
            return (bits & np.uint64(self.max_code)).astype(self.storage)
        unused = np.uint64(64 - self.bits)
        return ((bits << unused).view(np.int64) >> unused.astype(np.int64)).astype(self.storage)

    def _encode_whole(
        self, values: Array, rounding: str, overflow: str, random: Random | None, counts: Counts | None
    ) -> Array:
        """Integers, which float64 may not hold: by Python's where they are large."""
        if not values.size or (np.abs(values.astype(np.float64)).max() < EXACT):
            return self.encode(values.astype(np.float64), rounding, overflow, True, random, counts)
        n = self.fraction_bits
        if n < 0:
            words = self._whole_shifted(values, -n, rounding, random)
        else:
            words = np.asarray([int(v) << n for v in values.ravel()], dtype=object).reshape(values.shape)
        over = (words > self.max_code) | (words < self.min_code)
        if over.any() and overflow == "raise":
            raise FormatError(
                f"{self.name}: {values[over.astype(bool)].flat[0]} overflows: it holds {self.min} to {self.max}"
            )
        if counts is not None:
            counts.values, counts.overflowed = counts.values + values.size, counts.overflowed + int(over.sum())
        if overflow == "wrap":
            return self.cut((words % (1 << 64)).astype(np.uint64))
        return np.asarray(np.clip(words, self.min_code, self.max_code)).astype(self.storage)

    @staticmethod
    def _whole_shifted(values: Array, by: int, rounding: str, random: Random | None) -> Array:
        """Integers / 2^by, rounded, as Python's: what is cut off is a fraction that float64 holds well enough to round."""
        negative = values < 0
        size = values.astype(np.uint64)
        size = np.where(negative, ~size + np.uint64(1), size)
        kept = size >> np.uint64(by) if by < 64 else np.zeros_like(size)
        rest = size - (kept << np.uint64(min(by, 63)))
        up = whole_units(np.ldexp(round_to_odd(rest), -by), negative, rounding, random, lowest=kept & np.uint64(1))
        found = kept.astype(object) + up.astype(np.int64).astype(object)
        return np.asarray(np.where(negative, -found, found))

    @property
    def interchange(self) -> np.dtype[Any] | None:
        return None


Q = Fixed

__all__ = ["OVERFLOWS", "Fixed", "Q"]
