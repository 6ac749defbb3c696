"""One thread per plane, each window by itself. Windows that are all alike go to the pooling rungs, whole images to the mean's.

Next limit: a window's sum is one chain of additions, each of which waits for the last.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.adaptive_pool import spec
from ulpgrad.kernels.conv.geometry import Pair
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.pool import numba_planes as pool
from ulpgrad.kernels.reduction import numba_chunks
from ulpgrad.kernels.registry import kernel

FORMATS = (float32, float64)
NO = (0, 0)


def _planes(a: Array) -> Array:
    """[n, c, h, w] -> [n * c, h, w]."""
    return a.reshape(a.shape[0] * a.shape[1], *a.shape[2:])


def _edges(size: Pair, count: Pair) -> tuple[Array, Array]:
    """First and end of each window, along height and width."""
    rows, columns = (np.asarray(spec.spans(s, n), np.int64) for s, n in zip(size, count, strict=True))
    return rows, columns


@jit(parallel=True)
def _avg(x: Any, y: Any, rows: Any, columns: Any) -> None:
    for plane in prange(x.shape[0]):
        for i in range(len(rows)):
            for j in range(len(columns)):
                total = x.dtype.type(0)
                for h in range(rows[i, 0], rows[i, 1]):
                    for w in range(columns[j, 0], columns[j, 1]):
                        total += x[plane, h, w]
                count = (rows[i, 1] - rows[i, 0]) * (columns[j, 1] - columns[j, 0])
                y[plane, i, j] = total / x.dtype.type(count)


@jit(parallel=True)
def _avg_gradient(g: Any, out: Any, rows: Any, columns: Any) -> None:
    for plane in prange(g.shape[0]):
        for i in range(len(rows)):
            for j in range(len(columns)):
                count = (rows[i, 1] - rows[i, 0]) * (columns[j, 1] - columns[j, 0])
                share = g[plane, i, j] / g.dtype.type(count)
                for h in range(rows[i, 0], rows[i, 1]):
                    for w in range(columns[j, 0], columns[j, 1]):
                        out[plane, h, w] += share


@jit(parallel=True)
def _max(x: Any, y: Any, places: Any, rows: Any, columns: Any) -> None:
    for plane in prange(x.shape[0]):
        for i in range(len(rows)):
            for j in range(len(columns)):
                best = x[plane, rows[i, 0], columns[j, 0]]
                place = rows[i, 0] * x.shape[2] + columns[j, 0]
                for h in range(rows[i, 0], rows[i, 1]):
                    for w in range(columns[j, 0], columns[j, 1]):
                        value = x[plane, h, w]
                        if value > best or (value != value and best == best):
                            best, place = value, h * x.shape[2] + w
                y[plane, i, j] = best
                places[plane, i, j] = place


@kernel(spec.adaptive_avg_pool2d, "cpu/numba-planes", rank=30, formats=FORMATS, contiguous=True)
def adaptive_avg_pool2d(x: Array, *, output_size: Pair) -> Array:
    if output_size == (1, 1):
        return numba_chunks.mean(x, axis=(2, 3), keepdims=True)
    size = spec.alike(x.shape[2:], output_size)
    if size is not None:
        return pool.avg_pool2d(x, kernel_size=size, stride=size, padding=NO, count_include_pad=True)
    y = np.empty((*x.shape[:2], *output_size), x.dtype)
    _avg(_planes(x), _planes(y), *_edges(x.shape[2:], output_size))
    return y


@kernel(spec.adaptive_avg_pool2d_gradient, "cpu/numba-planes", rank=30, formats=FORMATS, contiguous=True)
def adaptive_avg_pool2d_gradient(g: Array, *, size: Pair) -> Array:
    out = np.zeros((*g.shape[:2], *size), g.dtype)
    _avg_gradient(_planes(g), _planes(out), *_edges(size, g.shape[2:]))
    return out


@kernel(spec.adaptive_max_pool2d, "cpu/numba-planes", rank=30, formats=FORMATS, contiguous=True)
def adaptive_max_pool2d(x: Array, *, output_size: Pair) -> tuple[Array, Array]:
    size = spec.alike(x.shape[2:], output_size)
    if size is not None:
        return pool.max_pool2d(x, kernel_size=size, stride=size, padding=NO, dilation=(1, 1))
    y, places = (np.empty((*x.shape[:2], *output_size), dtype) for dtype in (x.dtype, np.int64))
    _max(_planes(x), _planes(y), _planes(places), *_edges(x.shape[2:], output_size))
    return y, places
