"""Affine: integers with a scale and a zero point, per tensor or per channel, as quantised inference uses them."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats.format import Array, Format, interned
from ulpgrad.formats.rounding import Counts, Random, whole_units

OVERFLOWS = ("saturate", "raise")
BASES = ("int8", "uint8")

_made: weakref.WeakValueDictionary[Any, Affine] = weakref.WeakValueDictionary()  # calibration makes many


class Affine(Format):
    """value = (code - zero_point) * scale, with int8 or uint8 codes.

    `scale` and `zero_point` are numbers, or with `axis` one-dimensional, a value for each position on that axis of the
    tensor (counted from the front). FormatError for a scale that is zero, negative or not finite, or a zero point that is
    no code. Equal parameters give the same object. Source: Jacob et al., "Quantization and training of neural networks for
    efficient integer-arithmetic-only inference", CVPR 2018.
    """

    kind = "affine"
    differentiable = True
    routed = True
    is_native = False

    base: str
    scale: Array
    zero_point: Array
    axis: int | None

    def __new__(cls, base: Any, scale: Any, zero_point: Any = 0, axis: int | None = None) -> Affine:
        name = str(base)
        if name not in BASES:
            raise FormatError(f"Affine: base={name!r}: expected one of {', '.join(BASES)}")
        scales = np.array(scale, dtype=np.float64)
        zeros = np.array(zero_point)
        if zeros.dtype.kind not in "iu":
            raise FormatError(f"Affine: zero_point={zero_point!r}: expected whole numbers")
        if scales.ndim != (0 if axis is None else 1) or zeros.ndim > scales.ndim or (axis is not None and axis < 0):
            raise FormatError(
                f"Affine: scale of shape {scales.shape}, zero_point {zeros.shape}, axis={axis}: expected numbers without an "
                "axis, and with one (0 or more) a scale for each position on it"
            )
        zeros = np.broadcast_to(zeros, scales.shape).astype(np.int64)
        key = (name, scales.tobytes(), zeros.tobytes(), scales.shape, axis)
        found: Affine = interned(_made, key, lambda: cls._make(name, scales, zeros, axis))
        return found

    def __init__(self, *_: Any, **__: Any) -> None:
        """Everything is done once, in `_make`."""

    @classmethod
    def _make(cls, base: str, scale: Array, zero_point: Array, axis: int | None) -> Affine:
        wrong = ~((scale > 0) & np.isfinite(scale))
        if wrong.any():
            raise FormatError(f"Affine: scale={scale[wrong].flat[0]}: expected a finite number above zero")
        low, high = (-128, 127) if base == "int8" else (0, 255)
        outside = (zero_point < low) | (zero_point > high)
        if outside.any():
            raise FormatError(
                f"Affine: zero_point={zero_point[outside].flat[0]}: expected {low} to {high}, a code of {base}"
            )
        self = super().__new__(cls)
        what = f"{scale:.6g}, {zero_point}" if axis is None else f"{scale.size} scales, axis={axis}"
        Format.__init__(self, f"affine({base}, {what})", 8, "i1" if base == "int8" else "u1")
        self.base, self.scale, self.zero_point, self.axis = base, scale, zero_point, axis
        self.scale.setflags(write=False)
        self.zero_point.setflags(write=False)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Affine, (self.base, self.scale, self.zero_point, self.axis)

    @property
    def min_code(self) -> int:
        return -128 if self.base == "int8" else 0

    @property
    def max_code(self) -> int:
        return 127 if self.base == "int8" else 255

    @property
    def max(self) -> float:
        """Largest value (of all channels)."""
        return float(((self.max_code - self.zero_point) * self.scale).max())

    @property
    def min(self) -> float:
        """Smallest value (of all channels)."""
        return float(((self.min_code - self.zero_point) * self.scale).min())

    def along(self, parameter: Array, ndim: int, size: tuple[int, ...]) -> Array:
        """Scale or zero point, shaped to broadcast over a tensor; FormatError if the tensor has other channels."""
        if self.axis is None:
            return parameter
        if self.axis >= ndim or size[self.axis] != parameter.size:
            raise FormatError(
                f"{self.name}: a tensor of shape {size} does not have {parameter.size} channels on axis {self.axis}"
            )
        return parameter.reshape([-1 if a == self.axis else 1 for a in range(ndim)])

    def exact(self, storage: Any) -> Array:
        codes = np.asarray(storage)
        zero, scale = (self.along(p, codes.ndim, codes.shape) for p in (self.zero_point, self.scale))
        return np.asarray((codes.astype(np.float64) - zero) * scale)

    def decode(self, storage: Any) -> Array:
        """Values, rounded to float32 once."""
        return self.exact(storage).astype(np.float32)

    def spacing(self, values: Any) -> Array:
        """Distance between neighbouring codes: the scale."""
        given = np.asarray(values)
        return np.asarray(np.broadcast_to(self.along(self.scale, given.ndim, given.shape), given.shape))

    def encode(
        self,
        values: Array,
        rounding: str = "nearest_even",
        overflow: str | None = None,
        subnormals: bool = True,
        random: Random | None = None,
        counts: Counts | None = None,
    ) -> Array:
        """The nearest codes of values / scale + zero_point. `overflow`: "saturate" (the default) or "raise"; NaN raises."""
        overflow = overflow or "saturate"
        if overflow not in OVERFLOWS:
            raise ArgumentError(f"{self.name}: overflow={overflow!r}: expected one of {', '.join(OVERFLOWS)}")
        wide = values.astype(np.float64)
        if np.isnan(wide).any():
            raise FormatError(f"{self.name} has no NaN, and one was given: replace such values first")
        zero, scale = (self.along(p, wide.ndim, wide.shape) for p in (self.zero_point, self.scale))
        infinite = np.isinf(wide)
        units = whole_units(np.where(infinite, 0, np.abs(wide) / scale), np.signbit(wide), rounding, random)
        units = np.where(infinite, np.inf, units) * np.where(np.signbit(wide), -1.0, 1.0) + zero
        over = (units < self.min_code) | (units > self.max_code)
        if counts is not None:
            counts.values += wide.size
            counts.overflowed += int((over & ~infinite).sum())
            counts.underflowed += int(((units == zero) & (wide != 0)).sum())
        if overflow == "raise" and over.any():
            raise FormatError(f"{self.name}: {wide[over].flat[0]!s} overflows: it holds {self.min} to {self.max}")
        return np.asarray(np.clip(units, self.min_code, self.max_code).astype(self.storage))

    @property
    def interchange(self) -> np.dtype[Any] | None:
        return None


__all__ = ["Affine"]
