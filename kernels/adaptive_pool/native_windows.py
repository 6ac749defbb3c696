"""Sums of neighbouring windows side by side, so that none waits for the other; channels in vectors where these lie side by side.

Windows that are all alike go to avg_pool2d's and max_pool2d's rungs; the means of whole rows are reductions. 16-bit floats are
widened on their way. Next limit: windows begin anywhere, so that values of neighbouring ones are loaded one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array, bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.adaptive_pool import spec
from ulpgrad.kernels.conv.geometry import Pair
from ulpgrad.kernels.registry import kernel

FORMATS = (float32, float64, bfloat16, float16)
NO = (0, 0)


def has_channels_last(x: Array) -> bool:
    return x.shape[1] > 1 and x.strides[1] == x.itemsize and not x.flags.c_contiguous


@kernel(spec.adaptive_avg_pool2d, "cpu/native-windows", rank=60, formats=FORMATS)
def adaptive_avg_pool2d(x: Array, *, output_size: Pair) -> Any:
    size = spec.alike(x.shape[2:], output_size)
    if size is None:
        return native.module().adaptive_avg_pool2d(x, output_size=output_size)
    if output_size[1] == 1 and not has_channels_last(x):
        runs = np.ascontiguousarray(x).reshape(*x.shape[:2], output_size[0], size[0] * size[1])
        return native.module().reduce(runs, "mean", (3,), True)
    return native.module().avg_pool2d(x, kernel_size=size, stride=size, padding=NO, count_include_pad=True)


@kernel(spec.adaptive_avg_pool2d_gradient, "cpu/native-windows", rank=60, formats=FORMATS)
def adaptive_avg_pool2d_gradient(g: Array, *, size: Pair) -> Any:
    window = spec.alike(size, g.shape[2:])
    if window is None:
        return native.module().adaptive_avg_pool2d_gradient(g, size=size)
    return native.module().avg_pool2d_gradient(
        g, size=size, kernel_size=window, stride=window, padding=NO, count_include_pad=True
    )


@kernel(spec.adaptive_max_pool2d, "cpu/native-windows", rank=60, formats=FORMATS)
def adaptive_max_pool2d(x: Array, *, output_size: Pair) -> Any:
    size = spec.alike(x.shape[2:], output_size)
    if size is None:
        return native.module().adaptive_max_pool2d(x, output_size=output_size)
    return native.module().max_pool2d(x, kernel_size=size, stride=size, padding=NO, dilation=(1, 1))
