"""Vectors of neighbouring outputs, or of channels where these lie side by side: sums, a maximum and its place stay in registers
for all taps, so that no branch is left in the loops.

Where channels come first, averages take the taps outside and a row of outputs inside. 16-bit floats are widened on their
way. Next limit: indices cost twice the bytes of the values.
"""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, bfloat16, float16, float32, float64, int64
from ulpgrad.kernels import native
from ulpgrad.kernels.conv.geometry import Pair
from ulpgrad.kernels.pool import spec
from ulpgrad.kernels.registry import kernel

FORMATS = (float32, float64, bfloat16, float16)


@kernel(spec.max_pool2d, "cpu/native-rows", rank=60, formats=FORMATS)
def max_pool2d(x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Any:
    return native.module().max_pool2d(
        x, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation
    )  # fmt: skip


@kernel(spec.max_pool2d_gradient, "cpu/native-rows", rank=60, formats=(*FORMATS, int64))
def max_pool2d_gradient(g: Array, indices: Array, *, size: Pair) -> Any:
    try:
        return native.module().max_pool2d_gradient(g, indices, size=size)
    except IndexError:
        spec.check_indices(indices, size)  # says which
        raise


@kernel(spec.avg_pool2d, "cpu/native-rows", rank=60, formats=FORMATS)
def avg_pool2d(x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> Any:
    return native.module().avg_pool2d(
        x, kernel_size=kernel_size, stride=stride, padding=padding, count_include_pad=count_include_pad
    )


@kernel(spec.avg_pool2d_gradient, "cpu/native-rows", rank=60, formats=FORMATS)
def avg_pool2d_gradient(
    g: Array, *, size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool
) -> Any:
    return native.module().avg_pool2d_gradient(
        g, size=size, kernel_size=kernel_size, stride=stride, padding=padding, count_include_pad=count_include_pad
    )
