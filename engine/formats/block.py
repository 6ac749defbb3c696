"""Block: elements that share a power of two. The specification is "OCP Microscaling Formats (MX) v1.0"."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats.fixed import Fixed
from ulpgrad.formats.floating import Float
from ulpgrad.formats.format import Array, Format, interned
from ulpgrad.formats.rounding import Counts, Random

RULES = ("floor", "rceil", "even")
NAN_SCALE, SCALE_BIAS = 0xFF, 127

_made: dict[Any, Block] = {}


class BlockArray:
    """Storage of a Block tensor: `codes` of the elements in the tensor's shape, `scales` (E8M0 codes, uint8) in the same shape
    but with a scale for each block on `axis`."""

    __slots__ = ("axis", "codes", "scales", "size_of_block")

    def __init__(self, codes: Array, scales: Array, axis: int, size_of_block: int) -> None:
        self.codes: Array = codes
        self.scales: Array = scales
        self.axis, self.size_of_block = axis, size_of_block

    def on(self, move: Callable[[Any], Any]) -> BlockArray:
        """The same blocks, their arrays moved to another device by a function."""
        return BlockArray(move(self.codes), move(self.scales), self.axis, self.size_of_block)

    @property
    def shape(self) -> tuple[int, ...]:
        size: tuple[int, ...] = self.codes.shape
        return size

    @property
    def ndim(self) -> int:
        return self.codes.ndim

    @property
    def size(self) -> int:
        return self.codes.size

    @property
    def nbytes(self) -> int:
        """Bytes of codes and scales, an element of less than 8 bits taking a byte."""
        return self.codes.nbytes + self.scales.nbytes

    @property
    def base(self) -> Any:
        return self.codes.base

    def copy(self) -> BlockArray:
        return BlockArray(self.codes.copy(), self.scales.copy(), self.axis, self.size_of_block)

    def __array__(self, *_: Any, **__: Any) -> Array:
        raise FormatError(
            "a tensor in blocks has no plain array: convert it with .to(float32), or read .codes and .scales"
        )

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise FormatError(f"a tensor in blocks cannot do this ({name}): convert it with .to(float32) first")

    def __getitem__(self, _: Any) -> Any:
        raise FormatError("a tensor in blocks cannot be indexed: convert it with .to(float32) first")

    def __reduce__(self) -> tuple[Any, ...]:
        return BlockArray, (self.codes, self.scales, self.axis, self.size_of_block)


class Block(Format):
    """`size` elements (32) along an axis with one scale 2^s, s from -127 to 127 in E8M0: value = element * 2^s.

    `rule` chooses s from the largest magnitude `amax` of the block, by its exponent bits: "floor", the specification's:
    floor(log2 amax) less the element's largest exponent, so that a few elements are clamped; "rceil": the smallest s with
    amax <= largest element * 2^s, so that none is; "even": like floor, of amax rounded to the element's digits.

    A block with a NaN or an infinity is all NaN (scale 0xFF). amax 0 gives s = -127. The last block on an axis may be
    short: it is scaled as if padded with zeros, which are not stored. Arithmetic on such tensors gives float32.
    """

    kind = "block"
    differentiable = True
    routed = True
    is_native = False

    element: Float | Fixed
    size: int
    rule: str

    def __new__(cls, element: Float | Fixed, size: int = 32, rule: str = "floor", name: str | None = None) -> Block:
        if not isinstance(element, (Float, Fixed)) or element.bits > 8 or not element.signed:
            raise FormatError(
                f"Block: element={element}: expected a float or fixed-point format of at most 8 bits with a sign"
            )
        if not isinstance(size, int) or size < 1:
            raise FormatError(f"Block: size={size!r}: expected a whole number from 1 on")
        if rule not in RULES:
            raise FormatError(f"Block: rule={rule!r}: expected one of {', '.join(RULES)}")
        made: Block = interned(_made, (element, size, rule), lambda: cls._make(element, size, rule, name))
        return made

    def __init__(self, *_: Any, **__: Any) -> None:
        """Everything is done once, in `_make`."""

    @classmethod
    def _make(cls, element: Float | Fixed, size: int, rule: str, name: str | None) -> Block:
        self = super().__new__(cls)
        called = name or f"block{size}({element.name}, {rule})"
        Format.__init__(self, called, element.bits, element.storage)
        self.element, self.size, self.rule = element, size, rule
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Block, (self.element, self.size, self.rule, self.name)

    @property
    def bits_per_value(self) -> float:
        """Bits of an element and its share of the scale."""
        return self.bits + 8 / self.size

    @property
    def max_exponent(self) -> int:
        """The specification's emax: exponent of the largest element."""
        return math.frexp(self.element.max)[1] - 1

    @property
    def max(self) -> float:
        """Largest value: the largest element at the largest scale."""
        return math.ldexp(self.element.max, 127)

    @property
    def min(self) -> float:
        return -self.max

    def scale_exponents(self, amax: Array) -> Array:
        """Exponents s of blocks by the rule, from their largest magnitudes; -127 to 127, whole numbers."""
        fraction, exponent = np.frexp(amax)  # amax = fraction * 2^exponent, fraction in [0.5, 1)
        exponent = exponent - 1
        if self.rule == "rceil":
            largest, _ = math.frexp(self.element.max)
            exponent = exponent + (fraction > largest)
        elif self.rule == "even":
            digits = self.element.mantissa_bits if isinstance(self.element, Float) else self.element.bits - 2
            exponent = exponent + (fraction >= 1 - 2.0 ** -(digits + 2))
        return np.where(amax == 0, -SCALE_BIAS, np.clip(exponent - self.max_exponent, -SCALE_BIAS, SCALE_BIAS))

    def encode(
        self,
        values: Array,
        rounding: str = "nearest_even",
        overflow: str | None = None,
        subnormals: bool = True,
        random: Random | None = None,
        counts: Counts | None = None,
        axis: int = -1,
    ) -> BlockArray:
        """Values to elements and scales, in blocks along `axis`; each element is rounded once and clamped."""
        if overflow not in (None, "saturate"):
            raise ArgumentError(
                f"{self.name}: overflow={overflow!r}: elements of a block are always clamped ('saturate')"
            )
        if values.ndim == 0:
            raise FormatError(f"{self.name}: a 0-d tensor has no axis to make blocks on; reshape it to (1,)")
        wide = np.moveaxis(values.astype(np.float64), axis, -1)
        length, count = wide.shape[-1], -(-wide.shape[-1] // self.size)
        padded = np.zeros((*wide.shape[:-1], count * self.size))
        padded[..., :length] = np.abs(wide)
        amax = padded.reshape(*wide.shape[:-1], count, self.size).max(axis=-1, initial=0)  # NaN stays NaN
        finite = np.isfinite(amax)
        exponents = self.scale_exponents(np.where(finite, amax, 0))
        known = self._spread(finite, length)
        scaled = np.where(known, np.ldexp(wide, -self._spread(exponents, length)), 0)
        scaled = np.where(known & (scaled == 0) & (wide != 0), np.copysign(5e-324, wide), scaled)  # up and down see it
        if random is not None:
            random = Random(np.moveaxis(random.words.reshape(values.shape), axis, -1), random.bits)
        codes = self.element.encode(scaled, rounding, "saturate", subnormals, random, counts)
        if counts is not None:
            counts.nan += int((~finite).sum())
        scales = np.where(finite, exponents + SCALE_BIAS, NAN_SCALE).astype(np.uint8)
        where = axis % values.ndim
        return BlockArray(np.ascontiguousarray(np.moveaxis(codes, -1, where)),
                          np.ascontiguousarray(np.moveaxis(scales, -1, where)), where, self.size)  # fmt: skip

    def _spread(self, per_block: Array, length: int) -> Array:
        """A value of each block for each of its elements, on the last axis."""
        return np.repeat(per_block, self.size, axis=-1)[..., :length]

    def exact(self, storage: Any) -> Array:
        """float64 values; NaN in blocks whose scale is NaN."""
        scales = np.moveaxis(storage.scales, storage.axis, -1)
        spread = np.moveaxis(self._spread(scales, storage.shape[storage.axis]), -1, storage.axis)
        values = np.ldexp(self.element.exact(storage.codes), spread.astype(np.int64) - SCALE_BIAS)
        return np.where(spread == NAN_SCALE, np.nan, values)

    def decode(self, storage: Any) -> Array:
        """Values in float32; exact but for those beyond its range, which blocks made by hand may have."""
        with np.errstate(over="ignore"):
            return self.exact(storage).astype(np.float32)

    def spacing(self, values: Any) -> Array:
        raise FormatError(
            f"{self.name}: the spacing depends on a block's scale; ask the element format {self.element.name}"
        )

    @property
    def interchange(self) -> np.dtype[Any] | None:
        return None


__all__ = ["RULES", "Block", "BlockArray"]
