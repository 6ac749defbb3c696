"""A Format gives bits their meaning. Storage is the native array type where NumPy has one, else the unsigned integer of the
same width; `encode` and `decode` go between storage and plain NumPy values, each with at most one rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

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
    def interchange(self) -> np.dtype[Any]:
        """The NumPy (or ml_dtypes) dtype that other libraries know this format by."""
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
    """A binary float: sign, `exponent_bits`, `mantissa_bits` (stored ones), IEEE 754 infinities, NaN and subnormals."""

    exponent_bits: int = 0
    mantissa_bits: int = 0
    kind = "float"

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
        if self.is_native:
            return storage
        if self.exponent_bits == 8:  # the upper half of a float32
            return (storage.astype(np.uint32) << np.uint32(31 - self.exponent_bits - self.mantissa_bits)).view(
                np.float32
            )
        raise AssertionError(f"no decoder for {self.name}")

    def encode(self, values: Array) -> Array:
        if self.is_native:
            with np.errstate(over="ignore"):
                return values.astype(self.storage, copy=False)
        if values.dtype != np.float32:
            return self._encode_float64(np.asarray(values, dtype=np.float64))
        return round_float32_bits(np.ascontiguousarray(values).reshape(values.shape), self.mantissa_bits)

    def _encode_float64(self, values: Array) -> Array:
        """Round once to this format's spacing in float64 (exact), then take the bits by way of float32 (also exact)."""
        step = self.spacing(values)
        with np.errstate(invalid="ignore", over="ignore"):
            rounded = np.where(np.isfinite(values), np.rint(values / step) * step, values)
            return round_float32_bits(rounded.astype(np.float32), self.mantissa_bits)

    @property
    def interchange(self) -> np.dtype[Any]:
        if self.is_native:
            return self.storage
        import ml_dtypes

        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, self.name))
        return found


def round_float32_bits(values: Array, mantissa_bits: int) -> Array:
    """The upper 9 + mantissa_bits bits of float32 values, rounded to nearest even; NaN stays a (quiet) NaN."""
    drop = np.uint32(23 - mantissa_bits)
    bits = values.view(np.uint32)
    half = np.uint32((1 << (23 - mantissa_bits - 1)) - 1)
    rounded = (bits + (half + ((bits >> drop) & np.uint32(1)))) >> drop
    quiet = (bits >> drop) | np.uint32(1 << (mantissa_bits - 1))
    return np.where(np.isnan(values), quiet, rounded).astype(np.uint16)
