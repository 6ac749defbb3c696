"""A Format gives bits their meaning. Storage is the native array type where NumPy has one, else an unsigned integer that
holds its bits; `encode` and `decode` go between storage and plain NumPy values, each with at most one rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ulpgrad.errors import FormatError
from ulpgrad.formats import ieee

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class Format:
    """A number system. Formats are compared by identity: there is one object per name (`as_format(name)`).

    Attributes: `name`; `bits`, the width of one value; `storage`, the NumPy dtype its bits lie in.
    """

    name: str
    bits: int
    storage: np.dtype[Any]

    kind = "abstract"

    @property
    def itemsize(self) -> int:
        """Bytes per stored value."""
        return self.storage.itemsize

    @property
    def is_native(self) -> bool:
        """Whether the storage dtype computes in this format by itself."""
        return True

    @property
    def is_floating(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind == "integer"

    def decode(self, storage: Array) -> Array:
        """Storage to NumPy values that hold each code exactly."""
        return storage

    def encode(self, values: Array) -> Array:
        """NumPy values to storage, rounded once to nearest even."""
        return values.astype(self.storage, copy=False)

    def exact(self, storage: Array) -> Array:
        """Storage to the values that references compute with: float64 for floats, the values themselves for the rest."""
        return storage

    @property
    def interchange(self) -> np.dtype[Any] | None:
        """The NumPy (or ml_dtypes) dtype that other libraries know this format by, or None."""
        return self.storage

    def __repr__(self) -> str:
        return f"ulpgrad.{self.name}"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        from ulpgrad.formats import as_format

        return as_format, (self.name,)

    def __copy__(self) -> Format:
        return self

    def __deepcopy__(self, memo: Any) -> Format:
        return self


@dataclass(frozen=True, eq=False, repr=False)
class Boolean(Format):
    """True and False, one byte each."""

    kind = "bool"


@dataclass(frozen=True, eq=False, repr=False)
class Integer(Format):
    """A two's complement or unsigned integer. Arithmetic wraps, as in NumPy."""

    signed: bool = True
    kind = "integer"

    @property
    def min(self) -> int:
        return -(2 ** (self.bits - 1)) if self.signed else 0

    @property
    def max(self) -> int:
        return int(2 ** (self.bits - self.signed) - 1)


@dataclass(frozen=True, eq=False, repr=False)
class Float(Format):
    """A binary float: sign, `exponent_bits`, `mantissa_bits` (stored ones), IEEE 754 infinities, NaN and subnormals.

    Where NumPy does not compute in it, storage is an unsigned integer and float32 holds every value: exponent_bits 2 to 8,
    mantissa_bits 1 to 23, 31 bits in all at most. FormatError otherwise.
    """

    exponent_bits: int = 0
    mantissa_bits: int = 0
    kind = "float"

    def __post_init__(self) -> None:
        e, m = self.exponent_bits, self.mantissa_bits
        if self.bits != 1 + e + m:
            raise FormatError(
                f"{self.name}: {self.bits} bits: expected {1 + e + m}: a sign, {e} exponent and {m} mantissa bits"
            )
        if not self.is_native and not (2 <= e <= 8 and 1 <= m <= 23 and self.bits <= 31):
            raise FormatError(
                f"{self.name}: exponent_bits={e}, mantissa_bits={m}: expected 2 to 8 and 1 to 23, together at most 30"
            )
        if self.storage.kind not in "uf" or self.storage.itemsize * 8 < self.bits:
            raise FormatError(
                f"{self.name}: {self.bits} bits do not lie in {self.storage}: expected an unsigned dtype that holds them"
            )

    @property
    def bias(self) -> int:
        return int(2 ** (self.exponent_bits - 1) - 1)

    @property
    def is_native(self) -> bool:
        return self.storage.kind == "f"

    @property
    def max(self) -> float:
        """Largest finite value."""
        return float(2.0**self.bias * (2 - 2.0**-self.mantissa_bits))

    @property
    def min(self) -> float:
        """Most negative finite value."""
        return -self.max

    @property
    def smallest_normal(self) -> float:
        return float(2.0 ** (1 - self.bias))

    @property
    def smallest_subnormal(self) -> float:
        return float(2.0 ** (1 - self.bias - self.mantissa_bits))

    @property
    def eps(self) -> float:
        """Distance from 1 to the next larger value."""
        return float(2.0**-self.mantissa_bits)

    def spacing(self, values: Array) -> Array:
        """Distance between neighbouring codes at each |value|, in float64: one unit in the last place."""
        magnitude = np.abs(np.asarray(values, dtype=np.float64))
        _, exponent = np.frexp(np.where(np.isfinite(magnitude), magnitude, self.max))
        floor = 1 - self.bias - self.mantissa_bits
        exponent = np.where(magnitude == 0, floor, np.maximum(exponent - 1 - self.mantissa_bits, floor))
        return np.asarray(np.ldexp(1.0, exponent))

    def exact(self, storage: Array) -> Array:
        return self.decode(storage).astype(np.float64, copy=False)

    def decode(self, storage: Array) -> Array:
        """Storage to its values: as it is where NumPy computes in the format, else in float32, which holds each code."""
        return storage if self.is_native else ieee.decode(storage, self.exponent_bits, self.mantissa_bits)

    def encode(self, values: Array) -> Array:
        if self.is_native:
            with np.errstate(over="ignore", under="ignore", invalid="ignore"):
                return values.astype(self.storage, copy=False)
        return ieee.encode(values, self.exponent_bits, self.mantissa_bits).astype(self.storage)

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
        same = float(limits.max) == self.max and float(limits.smallest_subnormal) == self.smallest_subnormal
        return np.dtype(known) if same else None
