"""Convolution of codes on the matrix units in CUDA C++: implicit matmul of bytes with 32-bit sums, which wrap as an int32
accumulator does. Codes of 16 bits are two planes of bytes, laid apart before; their two or four products are added to the same
sums, one after the other.

Images are copied into planes with their channels side by side, filled up to multiples of 16 with zeros; codes of padding that
are not 0 are copied too. An int64 accumulator keeps its sums in memory between the products of planes, as long as each of these
fits 32 bits. Sums become codes of a result before they are written, where an op asks for that (`Codes`). Next limit: four
passes over images of 16 bits, where the bytes could be told apart in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv import cuda_units as units, spec as conv
from ulpgrad.kernels.conv.cuda_arguments import STRIDES, Shape, cdiv, images_like, shape_of, strides, too_large
from ulpgrad.kernels.cuda_compile import Kernel
from ulpgrad.kernels.integer import spec
from ulpgrad.kernels.integer.accumulator import INT32, INT64, as_accumulator
from ulpgrad.kernels.registry import Request, kernel

PASS = np.dtype(
    [("x", np.int64), ("w", np.int64), ("x_signed", np.int32), ("w_signed", np.int32), ("shift", np.int32)], align=True
)
PASSES = np.dtype([("count", np.int32), ("all", PASS, (4,))], align=True)
RULE = np.dtype(
    [
        ("words", STRIDES),
        *((n, np.int64) for n in ("low", "high")),
        *((n, np.int32) for n in ("bytes", "is_sum", "left", "right", "drop", "rounding", "random_bits", "wraps",
                                  "wraps_sum", "zero_point")),
    ],
    align=True,
)  # fmt: skip
KERNELS = {
    columns: Kernel("conv_integer.cu", f"conv_integer<{columns}>", since=units.SINCE) for columns in units.WIDTHS
}


def planes(codes: Any, groups: int, padding: tuple[int, int] = (0, 0), pad: int = 0) -> Any:
    """The bytes of codes [n, c, h, w] as [plane, n, channels, height, width], low ones first, with channels side by side, those
    of each group filled up with zeros, and `pad` around the images."""
    n, c, h, w = codes.shape
    per, (top, left) = c // groups, padding
    laid = gpu.xp().zeros(
        (codes.itemsize, n, h + 2 * top, w + 2 * left, groups, cdiv(per, units.PACKET) * units.PACKET), np.uint8
    )
    split = gpu.contiguous(codes.transpose(0, 2, 3, 1)).reshape(n, h, w, groups, per, 1).view(np.uint8)
    for plane in range(codes.itemsize):
        if pad:
            laid[plane, ..., :per] = pad >> 8 * plane & 255
        laid[plane, :, top : top + h, left : left + w, :, :per] = split[..., plane]
    return laid.reshape(*laid.shape[:4], groups * laid.shape[5]).transpose(0, 1, 4, 2, 3)


def refusal(request: Request) -> str | None:
    weight = request.arrays[1]
    chosen = as_accumulator(request.params.get("accumulator"))
    if chosen not in (INT32, INT64):
        return f"adds in 32 bits that wrap, or exactly in 64, not in {chosen}"
    if chosen == INT64 and spec.taps(weight) > spec.EXACT_BYTES:
        return f"adds exactly up to {spec.EXACT_BYTES} products, not {spec.taps(weight)}"
    convolution = request._replace(op=conv.conv2d)
    return (
        KERNELS[64].refusal()
        or too_large(convolution)
        or units.too_deep(shape_of(convolution), weight.shape[1], units.PACKET)
    )


class Operands:
    """Images and filters in planes of bytes."""

    def __init__(self, x: Any, weight: Any, pad: int, geometry: dict[str, Any]) -> None:
        self.x = planes(x, geometry["groups"], geometry["padding"] if pad else (0, 0), pad)
        self.weight = planes(weight, 1)
        self.geometry = {**geometry, "padding": (0, 0)} if pad else geometry
        self.signed = x.dtype.kind == "i", weight.dtype.kind == "i"
        pairs = product(range(len(self.x)), range(len(self.weight)))
        self.pairs = sorted(pairs, key=sum, reverse=True)  # those of the largest weight first

    def passes(self, *pairs: tuple[int, int]) -> Any:
        """The kernel's `Passes` for the products of these planes."""
        found, before = np.zeros((), PASSES), sum(pairs[0])
        found["count"] = len(pairs)
        for at, (i, j) in enumerate(pairs):
            signs = self.signed[0] and i == len(self.x) - 1, self.signed[1] and j == len(self.weight) - 1
            found["all"][at] = (i * self.x.strides[0], j * self.weight.strides[0], *signs, 8 * (before - i - j))
            before = i + j
        return found

    def convolve(self, y: Any, exact: bool, codes: Codes | None = None) -> Any:
        """y, which is written: sums, of 32 bits or exact ones, or the codes that they become."""
        x, weight = self.x[0], self.weight[0]
        shape = Shape(conv.conv2d, (x, weight), self.geometry)
        columns = units.width(shape.rows, shape.outputs, shape.groups)
        grid = (cdiv(shape.rows, units.ROWS) * cdiv(shape.outputs, columns), 1, shape.groups)
        places = (shape.argument, strides(x), strides(weight), strides(y), self.passes(*self.pairs))
        room = (grid[0] * grid[2], units.ROWS, columns)  # one product of planes fits 32 bits
        kept = gpu.xp().empty(room, np.int64) if exact and len(self.pairs) > 1 else None
        follows = (Codes() if codes is None else codes).arguments(y, is_sum=codes is None)
        KERNELS[columns].launch(
            grid, units.threads(columns), y, x, weight, *places, kept, *follows, shared=units.shared_bytes(columns)
        )
        return y


class Codes(NamedTuple):
    """What becomes of sums: limited(rounded((sum 2^left + bias 2^right) * multiplier / 2^shift)) + zero_point, in 64 bits, as
    csrc/cuda/conv_codes.cuh has it. Arrays may be None: `bias`, `multiplier`, `shift` (else `drop`) are one for each channel,
    `words` one for each result; `outside` lies as the result."""

    bias: Any = None
    multiplier: Any = None
    shift: Any = None
    words: Any = None
    outside: Any = None
    low: int = 0
    high: int = 0
    left: int = 0
    right: int = 0
    drop: int = 0
    rounding: int = 0
    random_bits: int = 0
    wraps: bool = False
    wraps_sum: bool = False
    zero_point: int = 0

    def arguments(self, y: Any, is_sum: bool) -> tuple[Any, ...]:
        """What the kernel is called with behind the sums, where `y` is the result."""
        words = None if self.words is None else gpu.contiguous(self.words)
        rule = np.zeros((), RULE)
        rule["words"] = 0 if words is None else strides(words)
        rule["bytes"], rule["is_sum"] = y.itemsize, is_sum
        for name in self._fields[5:]:
            rule[name] = getattr(self, name)
        bias = None if self.bias is None else gpu.contiguous(self.bias.astype(np.int64, copy=False))
        factors = (None if a is None else gpu.contiguous(a) for a in (self.multiplier, self.shift))
        return bias, *factors, words, self.outside, rule


def result_of(x: Any, weight: Any, dtype: Any, geometry: dict[str, Any]) -> Any:
    """Room for the results of a convolution, which lie as the images do."""
    positions = Shape(conv.conv2d, (x, weight), geometry).positions
    return images_like(x, x.shape[0], weight.shape[0], *positions, dtype=dtype)


@kernel(spec.integer_conv2d, "cuda/cuda-matrix", rank=90, formats=spec.FORMATS, where=refusal, build=True)
def integer_conv2d(request: Request) -> Callable[..., Any]:
    exact = as_accumulator(request.params.get("accumulator")) == INT64

    def run(x: Any, weight: Any, *, accumulator: Any = None, pad: int = 0, **geometry: Any) -> Any:
        y = result_of(x, weight, np.int64 if exact else np.int32, geometry)
        if not y.size or not weight.size:
            return gpu.xp().zeros_like(y)
        return Operands(x, weight, pad, geometry).convolve(y, exact)

    return run
