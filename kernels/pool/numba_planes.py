"""One thread per plane, and no windows in memory: each output looks at its own place on the image.

Where no window reaches beyond the image, a row of windows takes one value of each at a time, without a branch. Next limit:
elsewhere there is a branch for each value, and none fill vectors.
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


@jit(parallel=True)
def _max(x: Any, y: Any, indices: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> None:
    planes, height, width = x.shape
    for plane in prange(planes):
        for row in range(y.shape[1]):
            for column in range(y.shape[2]):
                top, left = row * stride[0] - padding[0], column * stride[1] - padding[1]
                best, place = -np.inf, -1
                for i in range(-(min(top, 0) // dilation[0]), kernel[0]):
                    h = top + i * dilation[0]
                    if h >= height:
                        break
                    for j in range(-(min(left, 0) // dilation[1]), kernel[1]):
                        w = left + j * dilation[1]
                        if w >= width:
                            break
                        value = x[plane, h, w]
                        if place < 0 or value > best or (value != value and best == best):
                            best, place = value, h * width + w
                y[plane, row, column], indices[plane, row, column] = best, place


@jit()
def _larger(x: Any, place: Any, step: Any, y: Any, indices: Any) -> None:
    """What is known or a line's values, whichever are larger, and their places: without a branch, so that it becomes vectors."""
    for column in range(len(y)):
        value, best = x[column], y[column]
        is_larger = (value > best) | ((value != value) & (best == best))
        y[column] = value if is_larger else best
        indices[column] = place + column * step if is_larger else indices[column]


@jit(parallel=True)
def _max_inside(x: Any, y: Any, indices: Any, kernel: Any, stride: Any) -> None:
    """Where every window lies on the image: a row of them at a time, one value of each."""
    planes, _, width = x.shape
    for plane in prange(planes):
        for row in range(y.shape[1]):
            line, places, top = y[plane, row], indices[plane, row], row * stride[0]
            count, step = len(line), stride[1]
            reach = (count - 1) * step + 1
            line[:] = x[plane, top, :reach:step]
            for column in range(count):
                places[column] = top * width + column * step
            for i in range(kernel[0]):
                source = x[plane, top + i]
                for j in range(kernel[1]):
                    place = (top + i) * width + j
                    if step == 1:
                        _larger(source[j : j + count], place, step, line, places)
                    else:
                        _larger(source[j : j + reach : step], place, step, line, places)


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
    if padding == (0, 0) and dilation == (1, 1):
        _max_inside(_planes(x), _planes(y), _planes(indices), kernel_size, stride)
    else:
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
