"""The definition as loops, one plane of results per turn: each weight is multiplied with a whole row of pixels.

Next limit: every product loads and stores its sum, so the arithmetic waits for the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.activated import activated
from ulpgrad.kernels.conv.geometry import Pair, output_size
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.registry import kernel

FORMATS = (float32, float64)


@jit(inline="always")
def inside(start: Any, step: Any, count: Any, size: Any) -> Any:
    """The range of i in [0, count) for which start + i * step lies in [0, size)."""
    first = (-start + step - 1) // step if start < 0 else 0
    end = (size - start + step - 1) // step if start < size else 0
    return first, min(end, count)


@jit(parallel=True, fastmath={"contract"})
def _forward(x: Any, weight: Any, y: Any, stride: Any, padding: Any, dilation: Any, groups: Any) -> None:
    images, _, height, width = x.shape
    outputs, channels, kernel_rows, kernel_columns = weight.shape
    for task in prange(images * outputs):
        n, o = task // outputs, task % outputs
        first_channel = o // (outputs // groups) * channels
        for c in range(channels):
            for i in range(kernel_rows):
                top = i * dilation[0] - padding[0]
                first_row, end_row = inside(top, stride[0], y.shape[2], height)
                for j in range(kernel_columns):
                    left = j * dilation[1] - padding[1]
                    first, end = inside(left, stride[1], y.shape[3], width)
                    w = weight[o, c, i, j]
                    for row in range(first_row, end_row):
                        for q in range(first, end):
                            y[n, o, row, q] += w * x[n, first_channel + c, top + row * stride[0], left + q * stride[1]]


@jit(parallel=True, fastmath={"contract"})
def _input_gradient(g: Any, weight: Any, dx: Any, stride: Any, padding: Any, dilation: Any, groups: Any) -> None:
    images, inputs, height, width = dx.shape
    outputs, channels, kernel_rows, kernel_columns = weight.shape
    for task in prange(images * inputs):
        n, channel = task // inputs, task % inputs
        group, c = channel // channels, channel % channels
        for o in range(group * (outputs // groups), (group + 1) * (outputs // groups)):
            for i in range(kernel_rows):
                top = i * dilation[0] - padding[0]
                first_row, end_row = inside(top, stride[0], g.shape[2], height)
                for j in range(kernel_columns):
                    left = j * dilation[1] - padding[1]
                    first, end = inside(left, stride[1], g.shape[3], width)
                    w = weight[o, c, i, j]
                    for row in range(first_row, end_row):
                        for q in range(first, end):
                            dx[n, channel, top + row * stride[0], left + q * stride[1]] += w * g[n, o, row, q]


@jit(parallel=True, fastmath={"contract"})
def _weight_gradient(g: Any, x: Any, dw: Any, stride: Any, padding: Any, dilation: Any, groups: Any) -> None:
    images, _, height, width = x.shape
    outputs, channels, kernel_rows, kernel_columns = dw.shape
    for task in prange(outputs * channels):
        o, c = task // channels, task % channels
        channel = o // (outputs // groups) * channels + c
        for i in range(kernel_rows):
            top = i * dilation[0] - padding[0]
            first_row, end_row = inside(top, stride[0], g.shape[2], height)
            for j in range(kernel_columns):
                left = j * dilation[1] - padding[1]
                first, end = inside(left, stride[1], g.shape[3], width)
                for n in range(images):
                    total = g.dtype.type(0)
                    for row in range(first_row, end_row):
                        for q in range(first, end):
                            total += g[n, o, row, q] * x[n, channel, top + row * stride[0], left + q * stride[1]]
                    dw[o, c, i, j] += total


@kernel(spec.conv2d, "cpu/numba-direct", rank=20, formats=FORMATS, contiguous=True)
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    activation: str | None = None,
) -> Array:
    positions = output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    y = np.zeros((x.shape[0], weight.shape[0], *positions), x.dtype)
    if bias is not None:
        y += bias[:, None, None]
    _forward(x, weight, y, stride, padding, dilation, groups)
    return activated(y, activation)


@kernel(spec.conv2d_input_gradient, "cpu/numba-direct", rank=20, formats=FORMATS, contiguous=True)
def input_gradient(
    g: Array, weight: Array, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    dx = np.zeros((g.shape[0], weight.shape[1] * groups, *size), g.dtype)
    _input_gradient(g, weight, dx, stride, padding, dilation, groups)
    return dx


@kernel(spec.conv2d_weight_gradient, "cpu/numba-direct", rank=20, formats=FORMATS, contiguous=True)
def weight_gradient(
    g: Array, x: Array, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    dw = np.zeros((g.shape[1], x.shape[1] // groups, *size), g.dtype)
    _weight_gradient(g, x, dw, stride, padding, dilation, groups)
    return dw
