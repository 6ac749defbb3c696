"""No patch matrix: images lie on padded planes, where a row of it is a pointer; register tiles of outputs x pixels run
over all taps.

A padded copy of each image (one per stride phase) is all that is written, instead of kernel-size copies; operands may have
any strides, channels last among them, because the copy reads them as they lie. Next limit: the multiply-add units.
"""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.geometry import Pair
from ulpgrad.kernels.registry import kernel

FORMATS = (float32, float64)


@kernel(spec.conv2d, "cpu/native-planes", rank=60, formats=FORMATS)
def conv2d(
    x: Array, weight: Array, bias: Array | None, *, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Any:
    return native.module().conv2d(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups
    )  # fmt: skip


@kernel(spec.conv2d_input_gradient, "cpu/native-planes", rank=60, formats=FORMATS)
def input_gradient(
    g: Array, weight: Array, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Any:
    return native.module().conv2d_input_gradient(
        g, weight, size=size, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


@kernel(spec.conv2d_weight_gradient, "cpu/native-planes", rank=60, formats=FORMATS)
def weight_gradient(g: Array, x: Array, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Any:
    return native.module().conv2d_weight_gradient(
        g, x, size=size, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
