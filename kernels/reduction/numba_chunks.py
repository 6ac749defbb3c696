"""Reductions in fixed chunks: threads reduce chunks of 4096 values, whose results are joined in order. Any thread count, the
same bits.

Inside a chunk, vector lanes are reduced apart. Axes other than the last are added row by row, four rows at a time and 32 to
a chunk. Next limit: memory, and a call of a few microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.numba_math import T, maximum
from ulpgrad.kernels.numba_rows import largest_or_nan, squares, total
from ulpgrad.kernels.reduction import spec
from ulpgrad.kernels.reduction.spec import result_shape, split
from ulpgrad.kernels.registry import kernel

CHUNK, ROWS = 4096, 32
FORMATS = [float32, float64]


@jit(parallel=True)
def _sum_runs(x, parts, out):  # type: ignore[no-untyped-def]
    outer, n = x.shape
    chunks = parts.shape[1]
    for t in prange(outer * chunks):
        i, k = t // chunks, t % chunks
        parts[i, k] = total(x[i, k * CHUNK : min((k + 1) * CHUNK, n)])
    for i in range(outer):
        for k in range(chunks):
            out[i] += parts[i, k]


@jit(parallel=True)
def _square_runs(x, middle, parts, out):  # type: ignore[no-untyped-def]
    outer, n = x.shape
    chunks = parts.shape[1]
    for t in prange(outer * chunks):
        i, k = t // chunks, t % chunks
        parts[i, k] = squares(x[i, k * CHUNK : min((k + 1) * CHUNK, n)], middle[i])
    for i in range(outer):
        for k in range(chunks):
            out[i] += parts[i, k]


@jit(parallel=True)
def _extreme_runs(x, sign, parts, out):  # type: ignore[no-untyped-def]
    outer, n = x.shape
    chunks = parts.shape[1]
    for t in prange(outer * chunks):
        i, k = t // chunks, t % chunks
        parts[i, k] = largest_or_nan(x[i, k * CHUNK : min((k + 1) * CHUNK, n)], T(sign))
    for i in range(outer):
        out[i] = T(sign) * largest_or_nan(parts[i], T(1))


@jit(parallel=True)
def _sum_columns(x, parts, out):  # type: ignore[no-untyped-def]
    outer, n, inner = x.shape
    chunks = parts.shape[1]
    for t in prange(outer * chunks):
        i, k = t // chunks, t % chunks
        sums, row, end = parts[i, k], k * ROWS, min((k + 1) * ROWS, n)
        while row + 4 <= end:
            a, b, c, d = x[i, row], x[i, row + 1], x[i, row + 2], x[i, row + 3]
            for j in range(inner):
                sums[j] += (a[j] + b[j]) + (c[j] + d[j])
            row += 4
        while row < end:
            a = x[i, row]
            for j in range(inner):
                sums[j] += a[j]
            row += 1
    for i in range(outer):
        for k in range(chunks):
            for j in range(inner):
                out[i, j] += parts[i, k, j]


@jit(parallel=True)
def _square_columns(x, middle, parts, out):  # type: ignore[no-untyped-def]
    outer, n, inner = x.shape
    chunks = parts.shape[1]
    for t in prange(outer * chunks):
        i, k = t // chunks, t % chunks
        sums, center = parts[i, k], middle[i]
        for row in range(k * ROWS, min((k + 1) * ROWS, n)):
            a = x[i, row]
            for j in range(inner):
                sums[j] += (a[j] - center[j]) * (a[j] - center[j])
    for i in range(outer):
        for k in range(chunks):
            for j in range(inner):
                out[i, j] += parts[i, k, j]


@jit(parallel=True)
def _extreme_columns(x, sign, parts, out):  # type: ignore[no-untyped-def]
    outer, n, inner = x.shape
    chunks = parts.shape[1]
    for t in prange(outer * chunks):
        i, k = t // chunks, t % chunks
        best = parts[i, k]
        best[:] = T(sign) * x[i, k * ROWS]
        for row in range(k * ROWS + 1, min((k + 1) * ROWS, n)):
            a = x[i, row]
            for j in range(inner):
                best[j] = maximum(best[j], T(sign) * a[j])
    for i in range(outer):
        out[i] = parts[i, 0]
        for k in range(1, chunks):
            for j in range(inner):
                out[i, j] = maximum(out[i, j], parts[i, k, j])
        for j in range(inner):
            out[i, j] *= T(sign)


def _reduced(x: Array, axis: spec.Axes, runs: Callable[..., None], columns: Callable[..., None], *middle: Any) -> Array:
    """[outer, inner]: runs of the last axis, or columns, reduced by chunks. `middle`: what the kernel takes beside x."""
    outer, n, inner = split(x.shape, axis)
    out = np.zeros((outer, inner), x.dtype)
    if inner == 1:
        given = (m.reshape(-1) if isinstance(m, np.ndarray) else m for m in middle)
        runs(x.reshape(outer, n), *given, np.empty((outer, -(-n // CHUNK)), x.dtype), out.reshape(-1))
    else:
        columns(x.reshape(outer, n, inner), *middle, np.zeros((outer, -(-n // ROWS), inner), x.dtype), out)
    return out


def _sums(x: Array, axis: spec.Axes) -> Array:
    return _reduced(x, axis, _sum_runs, _sum_columns)


@kernel(spec.sum, "cpu/numba-chunks", rank=20, formats=FORMATS, contiguous=True, where=spec.beside)
def _sum(x: Array, *, axis: spec.Axes, keepdims: bool) -> Array:
    return _sums(x, axis).reshape(result_shape(x.shape, axis, keepdims))


@kernel(spec.mean, "cpu/numba-chunks", rank=20, formats=FORMATS, contiguous=True, where=spec.beside)
def mean(x: Array, *, axis: spec.Axes, keepdims: bool) -> Array:
    with np.errstate(all="ignore"):
        means = _sums(x, axis) / x.dtype.type(spec.count(x, axis))
    return means.reshape(result_shape(x.shape, axis, keepdims))


@kernel(spec.var, "cpu/numba-chunks", rank=20, formats=FORMATS, contiguous=True, where=spec.beside)
def _var(x: Array, *, axis: spec.Axes, keepdims: bool, correction: float) -> Array:
    kind, n = x.dtype.type, spec.count(x, axis)
    with np.errstate(all="ignore"):
        means = _sums(x, axis) / kind(n)
        variances = _reduced(x, axis, _square_runs, _square_columns, means) / kind(max(n - correction, 0))
    return variances.reshape(result_shape(x.shape, axis, keepdims))


@kernel(spec.max, "cpu/numba-chunks", rank=20, formats=FORMATS, contiguous=True, where=spec.beside)
def _max(x: Array, *, axis: spec.Axes, keepdims: bool) -> Array:
    return _reduced(x, axis, _extreme_runs, _extreme_columns, 1.0).reshape(result_shape(x.shape, axis, keepdims))


@kernel(spec.min, "cpu/numba-chunks", rank=20, formats=FORMATS, contiguous=True, where=spec.beside)
def _min(x: Array, *, axis: spec.Axes, keepdims: bool) -> Array:
    return _reduced(x, axis, _extreme_runs, _extreme_columns, -1.0).reshape(result_shape(x.shape, axis, keepdims))
