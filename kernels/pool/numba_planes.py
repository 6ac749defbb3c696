"""One thread per plane, and no windows in memory: each output looks at its own place on the image.

All windows of a plane take one value each at a time, without a branch; where that lies beyond the image, rows and columns of
windows are left out. Next limit: strides of two are gathers, and the end of each row goes value by value.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array, float32, float64, int64
from ulpgrad.kernels.conv.geometry import Pair, output_size
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.pool import spec
from ulpgrad.kernels.registry import kernel

FORMATS = (float32, float64)


def _planes(a: Array) -> Array:
    """[n, c, h, w] -> [n * c, h, w]."""
    return a.reshape(a.shape[0] * a.shape[1], *a.shape[2:])


@jit(forceinline=True)
def _look(x: Any, h: Any, w: Any, y: Any, places: Any, row: Any, column: Any) -> None:
    """At one value for one window. No index is negative, which unsigned ones tell the compiler."""
    i, j = np.uint64(row), np.uint64(column)
    value, best, place = x[np.uint64(h), np.uint64(w)], y[i, j], places[i, j]
    is_larger = (place < 0) | (value > best) | ((value != value) & (best == best))
    y[i, j] = value if is_larger else best
    places[i, j] = h * x.shape[1] + w if is_larger else place


@jit()
def _larger(x: Any, y: Any, places: Any, top: Any, left: Any, stride: Any) -> None:
    """What is known of each window or its value so far from its corner, whichever is larger: NaN counts as the largest."""
    step = stride[1]
    begin, end = max(0, -(left // step)), min(y.shape[1], (x.shape[1] - 1 - left) // step + 1)
    for row in range(max(0, -(top // stride[0])), min(y.shape[0], (x.shape[0] - 1 - top) // stride[0] + 1)):
        h = row * stride[0] + top
        if step == 1:
            for column in range(begin, end):
                _look(x, h, column + left, y, places, row, column)
        elif step == 2:
            for column in range(begin, end):
                _look(x, h, 2 * column + left, y, places, row, column)
        else:
            for column in range(begin, end):
                _look(x, h, step * column + left, y, places, row, column)


@jit(parallel=True)
def _max(x: Any, y: Any, places: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> None:
    for plane in prange(len(x)):
        y[plane] = -np.inf
        places[plane] = -1
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                top, left = i * dilation[0] - padding[0], j * dilation[1] - padding[1]
                _larger(x[plane], y[plane], places[plane], top, left, stride)


@jit(parallel=True)
def _max_gradient(g: Any, indices: Any, out: Any) -> None:
    for plane in prange(g.shape[0]):
        for i in range(g.shape[1]):
            out[plane, indices[plane, i]] += g[plane, i]


@jit(parallel=True)
def _avg(x: Any, y: Any, kernel: Any, stride: Any, padding: Any, include: Any) -> None:
    planes, height, width = x.shape
    for plane in prange(planes):
        for row in range(y.shape[1]):
            for column in range(y.shape[2]):
                top, left = row * stride[0] - padding[0], column * stride[1] - padding[1]
                bottom, right = min(top + kernel[0], height), min(left + kernel[1], width)
                total = x.dtype.type(0)
                for h in range(max(top, 0), bottom):
                    for w in range(max(left, 0), right):
                        total += x[plane, h, w]
                count = kernel[0] * kernel[1] if include else (bottom - max(top, 0)) * (right - max(left, 0))
                y[plane, row, column] = total / x.dtype.type(count)


@jit(parallel=True)
def _avg_gradient(g: Any, out: Any, kernel: Any, stride: Any, padding: Any, include: Any) -> None:
    planes, height, width = out.shape
    for plane in prange(planes):
        for row in range(g.shape[1]):
            for column in range(g.shape[2]):
                top, left = row * stride[0] - padding[0], column * stride[1] - padding[1]
                bottom, right = min(top + kernel[0], height), min(left + kernel[1], width)
                count = kernel[0] * kernel[1] if include else (bottom - max(top, 0)) * (right - max(left, 0))
                share = g[plane, row, column] / g.dtype.type(count)
                for h in range(max(top, 0), bottom):
                    for w in range(max(left, 0), right):
                        out[plane, h, w] += share


@kernel(spec.max_pool2d, "cpu/numba-planes", rank=30, formats=FORMATS, contiguous=True)
def max_pool2d(x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> tuple[Array, Array]:
    shape = (*x.shape[:2], *output_size(x.shape[2:], kernel_size, stride, padding, dilation))
    y, indices = np.empty(shape, x.dtype), np.empty(shape, np.int64)
    _max(_planes(x), _planes(y), _planes(indices), kernel_size, stride, padding, dilation)
    return y, indices


@kernel(spec.max_pool2d_gradient, "cpu/numba-planes", rank=30, formats=(*FORMATS, int64), contiguous=True)
def max_pool2d_gradient(g: Array, indices: Array, *, size: Pair) -> Array:
    spec.check_indices(indices, size)
    out = np.zeros((*g.shape[:2], *size), g.dtype)
    planes, positions, values = g.shape[0] * g.shape[1], g.shape[2] * g.shape[3], size[0] * size[1]
    _max_gradient(
        g.reshape(planes, positions), indices.reshape(planes, positions), out.reshape(planes, values)
    )  # fmt: skip
    return out


@kernel(spec.avg_pool2d, "cpu/numba-planes", rank=30, formats=FORMATS, contiguous=True)
def avg_pool2d(x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> Array:
    y = np.empty((*x.shape[:2], *output_size(x.shape[2:], kernel_size, stride, padding, spec.ONE)), x.dtype)
    _avg(_planes(x), _planes(y), kernel_size, stride, padding, count_include_pad)
    return y


@kernel(spec.avg_pool2d_gradient, "cpu/numba-planes", rank=30, formats=FORMATS, contiguous=True)
def avg_pool2d_gradient(
    g: Array, *, size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool
) -> Array:
    out = np.zeros((*g.shape[:2], *size), g.dtype)
    _avg_gradient(_planes(g), _planes(out), kernel_size, stride, padding, count_include_pad)
    return out
