"""Volumes on the planes of conv2d: slices of a padded volume follow each other, so that a tap in depth is an offset like any
other, and the register tiles are those of images.

A slice is copied into planes once for all the taps that see it, instead of once for each. Next limit: the multiply-add units.
"""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.conv.geometry import Triple
from ulpgrad.kernels.conv3d import spec
from ulpgrad.kernels.registry import kernel

FORMATS = (float32, float64, bfloat16, float16)


@kernel(spec.conv3d, "cpu/native-planes", rank=60, formats=FORMATS)
def conv3d(
    x: Array, weight: Array, bias: Array | None, *, stride: Triple, padding: Triple, dilation: Triple, groups: int
) -> Any:
    return native.module().conv3d(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)


@kernel(spec.conv3d_input_gradient, "cpu/native-planes", rank=60, formats=FORMATS)
def input_gradient(
    g: Array, weight: Array, *, size: Triple, stride: Triple, padding: Triple, dilation: Triple, groups: int
) -> Any:
    return native.module().conv3d_input_gradient(
        g, weight, size=size, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


@kernel(spec.conv3d_weight_gradient, "cpu/native-planes", rank=60, formats=FORMATS)
def weight_gradient(
    g: Array, x: Array, *, size: Triple, stride: Triple, padding: Triple, dilation: Triple, groups: int
) -> Any:
    return native.module().conv3d_weight_gradient(
        g, x, size=size, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
