"""Sums in fixed chunks: threads add up chunks of 4096 values, whose sums are added in order. Any thread count, the same bits.

Inside a chunk, lanes of 32 running sums let the compiler use vectors without leave to reorder. Axes other than the last
are added row by row, 32 rows to a chunk. Next limit: the lanes are kept in memory between steps.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.reduction import spec
from ulpgrad.kernels.reduction.spec import result_shape, split
from ulpgrad.kernels.registry import kernel

CHUNK, LANES, ROWS = 4096, 32, 32
FORMATS = [float32, float64]


@jit()
def _chunk(x, begin, end):  # type: ignore[no-untyped-def]
    """Sum of x[begin:end]: each lane in order, then the lanes, then what is left over."""
    lanes = np.zeros(LANES, x.dtype)
    whole = begin + (end - begin) // LANES * LANES
    for i in range(begin, whole, LANES):
        for k in range(LANES):
            lanes[k] += x[i + k]
    total = x.dtype.type(0)
    for k in range(LANES):
        total += lanes[k]
    for i in range(whole, end):
        total += x[i]
    return total


@jit(parallel=True)
def _runs(x, outer, n, parts, out):  # type: ignore[no-untyped-def]
    chunks = parts.shape[1]
    for t in prange(outer * chunks):
        i, k = t // chunks, t % chunks
        parts[i, k] = _chunk(x, i * n + k * CHUNK, min(i * n + (k + 1) * CHUNK, (i + 1) * n))
    for i in range(outer):
        total = x.dtype.type(0)
        for k in range(chunks):
            total += parts[i, k]
        out[i] = total


@jit(parallel=True)
def _columns(x, outer, n, inner, parts, out):  # type: ignore[no-untyped-def]
    chunks = parts.shape[1]
    for t in prange(outer * chunks):
        i, k = t // chunks, t % chunks
        for row in range(k * ROWS, min((k + 1) * ROWS, n)):
            for j in range(inner):
                parts[i, k, j] += x[(i * n + row) * inner + j]
    for i in range(outer):
        for k in range(chunks):
            for j in range(inner):
                out[i * inner + j] += parts[i, k, j]


def total(x: Array, axis: spec.Axes) -> Array:
    """Sums over axes side by side, one per result."""
    outer, n, inner = split(x.shape, axis)
    out = np.zeros(outer * inner, x.dtype)
    if inner == 1:
        _runs(x.reshape(-1), outer, n, np.empty((outer, -(-n // CHUNK)), x.dtype), out)
    else:
        _columns(x.reshape(-1), outer, n, inner, np.zeros((outer, -(-n // ROWS), inner), x.dtype), out)
    return out


@kernel(spec.sum, "cpu/numba-chunks", rank=20, formats=FORMATS, contiguous=True, where=spec.beside)
def _sum(x: Array, *, axis: spec.Axes, keepdims: bool) -> Array:
    return total(x, axis).reshape(result_shape(x.shape, axis, keepdims))


@kernel(spec.mean, "cpu/numba-chunks", rank=20, formats=FORMATS, contiguous=True, where=spec.beside)
def _mean(x: Array, *, axis: spec.Axes, keepdims: bool) -> Array:
    with np.errstate(all="ignore"):
        means = total(x, axis) / x.dtype.type(spec.count(x, axis))
    return means.reshape(result_shape(x.shape, axis, keepdims))
