"""Float: any binary float of a sign, an exponent and a mantissa, whatever it does with its topmost codes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import codes
from ulpgrad.formats.format import Array, Format, interned
from ulpgrad.formats.rounding import Counts, Random

# What the codes beside finite numbers are.
SPECIALS = {
    "ieee": "all-ones exponent: infinity, then NaN",
    "fn": "no infinity; all ones are NaN",
    "fnuz": "no infinity, no negative zero, whose code is NaN",
    "none": "no infinity, no NaN",
    "fnu": "no sign, no zero, no infinity; all ones are NaN",
    "p3109": "IEEE P3109, extended: infinity is the largest code; the code of a negative zero is NaN",
    "p3109f": "IEEE P3109, finite: the code of a negative zero is NaN",
}
OVERFLOWS = ("ieee", "saturate", "raise")
NATIVE: dict[tuple[int, int], Any] = {(5, 10): np.float16, (8, 23): np.float32, (11, 52): np.float64}
BRAIN = (8, 7, 127, "ieee")

_made: dict[Any, Float] = {}


class Float(Format):
    """A binary float of `exponent_bits` and `mantissa_bits` (stored ones); equal parameters give the same object.

    `bias` defaults to 2^(e-1) - 1 (one more for fnuz; P3109's own). `specials`, see SPECIALS: "ieee", "fn", "fnuz", "none",
    "fnu", "p3109", "p3109f". `signed=False`, for P3109, leaves the sign away; there the topmost code is NaN.

    Up to 16 bits in all, or 31 if float32 holds every value: exponent bits 1 to 11, mantissa bits from 0. Storage is
    NumPy's type where there is one, else an unsigned integer that holds one code. FormatError for formats that cannot be.

    Sources: IEEE 754-2019; OCP 8-bit floating point (OFP8) and Microscaling (MX) v1.0; IEEE P3109 interim report;
    Wang et al. 2018 for 1-6-9.
    """

    kind = "float"
    differentiable = True

    exponent_bits: int
    mantissa_bits: int
    bias: int
    specials: str
    signed: bool
    max_code: int
    inf_code: int | None
    nan_code: int | None
    carrier: np.dtype[Any]  # the narrowest NumPy type from float32 on that holds every value

    def __new__(
        cls,
        exponent_bits: int,
        mantissa_bits: int,
        *,
        bias: int | None = None,
        specials: str = "ieee",
        signed: bool = True,
        name: str | None = None,
    ) -> Float:
        e, m = exponent_bits, mantissa_bits
        if specials not in SPECIALS:
            raise FormatError(f"Float({e}, {m}): specials={specials!r}: expected one of {', '.join(SPECIALS)}")
        signed = signed and specials != "fnu"
        if bias is None:
            bias = _default_bias(e, specials, signed) if isinstance(e, int) and 0 <= e <= 16 else 0
        key = (e, m, bias, specials, signed)
        made: Float = interned(_made, key, lambda: cls._make(*key, name))
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        """Everything is done once, in `_make`."""

    @classmethod
    def _make(cls, e: int, m: int, bias: int, specials: str, signed: bool, name: str | None) -> Float:
        bits = signed + e + m
        called = name or _name(e, m, bias, specials, signed)
        _check(called, e, m, bias, specials, signed)
        native = NATIVE.get((e, m)) if specials == "ieee" and bias == _default_bias(e, specials, signed) else None
        self = super().__new__(cls)
        Format.__init__(self, called, bits, native or ("u1" if bits <= 8 else "u2" if bits <= 16 else "u4"))
        self.is_native = native is not None
        self.exponent_bits, self.mantissa_bits, self.bias, self.specials, self.signed = e, m, bias, specials, signed
        top = (1 << (e + m)) - 1  # the largest magnitude code
        match specials:
            case "ieee":
                infinity = ((1 << e) - 1) << m
                self.max_code, self.inf_code, self.nan_code = infinity - 1, infinity, infinity | 1 << (m - 1)
            case "fn" | "fnu":
                self.max_code, self.inf_code, self.nan_code = top - 1, None, top
            case "none":
                self.max_code, self.inf_code, self.nan_code = top, None, None
            case "fnuz":
                self.max_code, self.inf_code, self.nan_code = top, None, top + 1
            case _:
                self.nan_code = top + 1 if signed else top
                last = top if signed else top - 1
                self.inf_code = last if specials == "p3109" else None
                self.max_code = last - (specials == "p3109")
        if self.max_code < 1:
            raise FormatError(f"{called}: {bits} bits with specials={specials!r} leave no number but zero")
        self.carrier = np.dtype(self.storage if native else _carrier(self))
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self.exponent_bits, self.mantissa_bits, self.bias, self.specials, self.signed, self.name)

    @property
    def has_zero(self) -> bool:
        return self.specials != "fnu"

    @property
    def has_negative_zero(self) -> bool:
        return self.signed and self.specials in ("ieee", "fn", "none")

    @property
    def min_exponent(self) -> int:
        """Exponent of the smallest normal value."""
        return 1 - self.bias if self.has_zero else -self.bias

    @property
    def max_exponent(self) -> int:
        """Exponent of the largest finite value."""
        return math.frexp(self.max)[1] - 1

    @property
    def max(self) -> float:
        """Largest finite value."""
        return codes.value(self, self.max_code)

    @property
    def min(self) -> float:
        """Most negative finite value; without a sign, the smallest value."""
        if self.signed:
            return -self.max
        return 0.0 if self.has_zero else self.smallest_normal

    @property
    def smallest_normal(self) -> float:
        return math.ldexp(1.0, self.min_exponent)

    @property
    def smallest_subnormal(self) -> float:
        """The smallest positive value: where there are no mantissa bits or no zero, the smallest normal one."""
        return math.ldexp(1.0, self.min_exponent - self.mantissa_bits) if self.has_zero else self.smallest_normal

    @property
    def eps(self) -> float:
        """Distance from 1 to the next larger value."""
        return math.ldexp(1.0, -self.mantissa_bits)

    @property
    def binades(self) -> float:
        """Dynamic range: log2 of the largest over the smallest positive value."""
        return math.log2(self.max) - math.log2(self.smallest_subnormal)

    @property
    def decibels(self) -> float:
        """Dynamic range in dB: 20 log10 of the largest over the smallest positive value."""
        return 20 * math.log10(2) * self.binades

    def spacing(self, values: Any) -> Array:
        """Distance between neighbouring codes at each |value|, in float64: one unit in the last place."""
        magnitude = np.abs(np.asarray(values, dtype=np.float64))
        _, exponent = np.frexp(np.where(np.isfinite(magnitude), magnitude, self.max))
        floor = self.min_exponent - self.mantissa_bits
        exponent = np.where(magnitude == 0, floor, np.maximum(exponent - 1 - self.mantissa_bits, floor))
        return np.asarray(np.ldexp(1.0, exponent))

    def values(self) -> Array:
        """The value of every code in order, float64[2^bits]; FormatError above 16 bits."""
        if self.bits > 16:
            raise FormatError(f"{self.name}: {self.bits} bits have too many codes to list; expected at most 16")
        return self.exact(
            np.arange(2**self.bits, dtype=np.uint32).astype(f"u{max(1, self.storage.itemsize)}").view(self.storage)
        )

    def exact(self, storage: Any) -> Array:
        return self.decode(storage).astype(np.float64, copy=False)

    def decode(self, storage: Any) -> Array:
        """Storage to its values: as it is where NumPy computes in the format, else in float32 (float64 from 9 exponent bits
        on), which holds each code."""
        return np.asarray(storage) if self.is_native else codes.decode(self, np.asarray(storage))

    def encode(
        self,
        values: Array,
        rounding: str = "nearest_even",
        overflow: str | None = None,
        subnormals: bool = True,
        random: Random | None = None,
        counts: Counts | None = None,
    ) -> Array:
        """Values to storage, rounded once.

        `overflow`: "ieee" (the default: infinity, NaN where there is none, the largest value where there is neither),
        "saturate" (the largest value, also for infinities; those become NaN in fnuz formats), "raise" (FormatError).
        Directed roundings and to-odd give the largest value where they round toward it. `subnormals=False` flushes those
        codes to zero. NaN has no code in formats without one: FormatError. What is below zero in a format without a sign
        is NaN, or with "saturate" the smallest value.
        """
        overflow = overflow or "ieee"
        if overflow not in OVERFLOWS:
            raise ArgumentError(f"{self.name}: overflow={overflow!r}: expected one of {', '.join(OVERFLOWS)}")
        if rounding == "nearest_even" and overflow == "ieee" and subnormals and counts is None:
            if self.is_native:
                with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                    return values.astype(self.storage, copy=False)
            kind = self.exponent_bits, self.mantissa_bits, self.bias, self.specials
            if kind == BRAIN and values.dtype == np.float32:
                return codes.bfloat16_bits(values)
        return codes.encode(self, values, rounding, overflow, subnormals, random, counts)

    @property
    def interchange(self) -> np.dtype[Any] | None:
        """NumPy's dtype, or that of ml_dtypes which has this name and these codes; None where neither knows the format."""
        if self.is_native:
            return self.storage
        import ml_dtypes

        known = getattr(ml_dtypes, self.name, None)
        if not isinstance(known, type):
            return None
        limits: Any = ml_dtypes.finfo(known)  # type: ignore[no-untyped-call]
        same = float(limits.max) == self.max and float(limits.smallest_subnormal) in (self.smallest_subnormal, 0.0)
        return np.dtype(known) if same or not self.has_zero else None


def _rebuild(e: int, m: int, bias: int, specials: str, signed: bool, name: str) -> Float:
    return Float(e, m, bias=bias, specials=specials, signed=signed, name=name)


def _default_bias(e: int, specials: str, signed: bool) -> int:
    half = 2 ** (e - 1) if e else 0
    if specials.startswith("p3109"):
        return max(1, half) if e else 1
    return half if specials == "fnuz" else half - 1


def _name(e: int, m: int, bias: int, specials: str, signed: bool) -> str:
    if specials.startswith("p3109") and bias == _default_bias(e, specials, signed):
        return f"binary{signed + e + m}p{m + 1}{'s' if signed else 'u'}{'f' if specials == 'p3109f' else 'e'}"
    suffix = "" if specials == "ieee" else specials
    shifted = "" if bias == _default_bias(e, specials, signed) else f"b{bias}"
    return f"{'' if signed or specials == 'fnu' else 'u'}e{e}m{m}{shifted}{suffix}"


def _check(name: str, e: int, m: int, bias: int, specials: str, signed: bool) -> None:
    whole = all(isinstance(v, int) and not isinstance(v, bool) for v in (e, m, bias))
    if not whole or e < 0 or m < 0:
        raise FormatError(f"{name}: exponent_bits={e!r}, mantissa_bits={m!r}, bias={bias!r}: expected whole numbers")
    bits = signed + e + m
    if (e, m) in NATIVE and specials == "ieee":
        return
    if e < (2 if specials == "ieee" else 1) or (specials == "ieee" and m < 1):
        raise FormatError(
            f"{name}: exponent_bits={e}, mantissa_bits={m}, specials={specials!r}: expected at least "
            + ("2 and 1, for infinity and NaN beside numbers" if specials == "ieee" else "1 exponent bit")
        )
    if e > 11 or (bits > 16 and (e > 8 or m > 23 or bits > 31)):
        raise FormatError(
            f"{name}: exponent_bits={e}, mantissa_bits={m}: expected at most 16 bits with 11 of exponent, or 31 bits with 8 "
            "and 23, which float64 and float32 hold exactly"
        )
    if not signed and specials not in ("fnu", "p3109", "p3109f"):
        raise FormatError(f"{name}: signed=False: expected specials='p3109', 'p3109f' or 'fnu' with it")


def _carrier(form: Float) -> type[Any]:
    """float32 or float64, whichever holds all values; FormatError if neither does."""
    largest, smallest, digits = codes.exponents(form)
    for kind, top, bottom, precision in ((np.float32, 127, -149, 24), (np.float64, 1023, -1074, 53)):
        if largest <= top and smallest >= bottom and digits <= precision:
            return kind
    raise FormatError(
        f"{form.name}: bias={form.bias}: values from 2^{smallest} to 2^{largest} lie outside float64's range"
    )


__all__ = ["OVERFLOWS", "SPECIALS", "Float"]
