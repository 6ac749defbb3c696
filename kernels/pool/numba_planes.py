"""One thread per plane, and no windows in memory: each output looks at its own place on the image.

All windows of a plane take one value each at a time, without a branch; where that lies beyond the image, rows and columns of
windows are left out. Next limit: strides of two are gathered value by value, and so goes the end of each row.
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


@jit()
def _inside(size: Any, count: Any, first: Any, step: Any) -> Any:
    """Which of `count` windows take a value of the image where they take their value `first`, each `step` further: from, to."""
    return max(0, -(first // step)), min(count, (size - 1 - first) // step + 1)


@jit(forceinline=True)
def _look(values: Any, y: Any, places: Any, first: Any, step: Any) -> None:
    """At one value for each window of a row: the largest so far, and its place. NaN counts as the largest."""
    for column in range(len(values)):
        value, best, place = values[column], y[column], places[column]
        is_larger = (place < 0) | (value > best) | ((value != value) & (best == best))
        y[column] = value if is_larger else best
        places[column] = first + step * column if is_larger else place


@jit()
def _larger(x: Any, y: Any, places: Any, top: Any, left: Any, stride: Any, line: Any) -> None:
    """What is known of each window, or its value so far from its corner, whichever is larger. `line`: room for a row."""
    step = stride[1]
    begin, end = _inside(x.shape[1], y.shape[1], left, step)
    if begin >= end:
        return
    for row in range(*_inside(x.shape[0], y.shape[0], top, stride[0])):
        h, w = row * stride[0] + top, begin * step + left
        known, where, first = y[row, begin:end], places[row, begin:end], h * x.shape[1] + w
        if step == 1:
            _look(x[h, w : w + end - begin], known, where, first, step)
        else:
            for column in range(end - begin):
                line[column] = x[h, w + step * column]
            _look(line[: end - begin], known, where, first, step)


@jit(forceinline=True)
def _add(to: Any, i: Any, j: Any, values: Any, h: Any, w: Any) -> None:
    """No index is negative, which unsigned ones tell the compiler."""
    to[np.uint64(i), np.uint64(j)] += values[np.uint64(h), np.uint64(w)]


@jit()
def _gathered(x: Any, y: Any, top: Any, left: Any, stride: Any) -> None:
    """One value more for the sum of each window. Indices, here and below: slices of rows took 1.7 times as long."""
    step = stride[1]
    begin, end = _inside(x.shape[1], y.shape[1], left, step)
    for row in range(*_inside(x.shape[0], y.shape[0], top, stride[0])):
        h = row * stride[0] + top
        if step == 1:
            for column in range(begin, end):
                _add(y, row, column, x, h, column + left)
        elif step == 2:
            for column in range(begin, end):
                _add(y, row, column, x, h, 2 * column + left)
        else:
            for column in range(begin, end):
                _add(y, row, column, x, h, step * column + left)


@jit()
def _scattered(shares: Any, out: Any, top: Any, left: Any, stride: Any) -> None:
    """The share of each window for one more of its values."""
    step = stride[1]
    begin, end = _inside(out.shape[1], shares.shape[1], left, step)
    for row in range(*_inside(out.shape[0], shares.shape[0], top, stride[0])):
        h = row * stride[0] + top
        if step == 1:
            for column in range(begin, end):
                _add(out, h, column + left, shares, row, column)
        else:
            for column in range(begin, end):
                _add(out, h, step * column + left, shares, row, column)


@jit()
def _divided(
    sums: Any, out: Any, height: Any, width: Any, kernel: Any, stride: Any, padding: Any, include: Any
) -> None:
    """Sums of windows over how many values they have: of the image, or `include` those beyond it."""
    for row in range(sums.shape[0]):
        top = row * stride[0] - padding[0]
        rows = kernel[0] if include else min(top + kernel[0], height) - max(top, 0)
        for column in range(sums.shape[1]):
            left = column * stride[1] - padding[1]
            columns = kernel[1] if include else min(left + kernel[1], width) - max(left, 0)
            out[row, column] = sums[row, column] / sums.dtype.type(rows * columns)


@jit(parallel=True)
def _max(x: Any, y: Any, places: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> None:
    for plane in prange(len(x)):
        line = np.empty(y.shape[2], x.dtype)
        y[plane] = -np.inf
        places[plane] = -1
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                top, left = i * dilation[0] - padding[0], j * dilation[1] - padding[1]
                _larger(x[plane], y[plane], places[plane], top, left, stride, line)


@jit(parallel=True)
def _max_gradient(g: Any, indices: Any, out: Any) -> None:
    for plane in prange(g.shape[0]):
        for i in range(g.shape[1]):
            out[plane, indices[plane, i]] += g[plane, i]


@jit(parallel=True)
def _avg(x: Any, y: Any, kernel: Any, stride: Any, padding: Any, include: Any) -> None:
    for plane in prange(len(x)):
        y[plane] = 0
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                _gathered(x[plane], y[plane], i - padding[0], j - padding[1], stride)
        _divided(y[plane], y[plane], x.shape[1], x.shape[2], kernel, stride, padding, include)


@jit(parallel=True)
def _avg_gradient(g: Any, out: Any, kernel: Any, stride: Any, padding: Any, include: Any) -> None:
    for plane in prange(len(g)):
        shares = np.empty(g.shape[1:], g.dtype)
        _divided(g[plane], shares, out.shape[1], out.shape[2], kernel, stride, padding, include)
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                _scattered(shares, out[plane], i - padding[0], j - padding[1], stride)


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
