"""exp without a call: straight-line code that LLVM turns into vectors, in three sweeps of a row while it lies in the cache.
Maximum and sum are taken in vector lanes, and quotients are products with the sum's reciprocal.

Here Numba is as fast as C++ in the same sweeps. Next limit: what a sweep costs in the first cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.numba_math import ONE, exp_of_shifted
from ulpgrad.kernels.numba_rows import dot, exp_into, largest, sum_of_exp, total
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.softmax import numba_columns, spec
from ulpgrad.kernels.softmax.rows import along_last

FORMATS = [float32, float64]
FEW_COLUMNS = 16


@jit(parallel=True)
def _softmax(x, y):  # type: ignore[no-untyped-def]
    for i in prange(x.shape[0]):
        row, out = x[i], y[i]
        scale = ONE / exp_into(row, largest(row), out)
        for j in range(row.size):
            out[j] *= scale


@jit(parallel=True)
def _log_softmax(x, y):  # type: ignore[no-untyped-def]
    for i in prange(x.shape[0]):
        row, out = x[i], y[i]
        top = largest(row)
        log = np.log(sum_of_exp(row, top))
        for j in range(row.size):
            out[j] = row[j] - top - log


@jit(parallel=True)
def _softmax_gradient(y, g, dx):  # type: ignore[no-untyped-def]
    for i in prange(y.shape[0]):
        slope, row, out = g[i], y[i], dx[i]
        middle = dot(slope, row)
        for j in range(row.size):
            out[j] = row[j] * (slope[j] - middle)


@jit(parallel=True)
def _log_softmax_gradient(y, g, dx):  # type: ignore[no-untyped-def]
    for i in prange(y.shape[0]):
        slope, row, out = g[i], y[i], dx[i]
        scale = total(slope)
        for j in range(row.size):
            out[j] = slope[j] - exp_of_shifted(row[j]) * scale


def _along(axis: int, rows: Callable[..., None], columns: Callable[..., None], *arrays: Array) -> Array:
    """Rows along the last axis; columns along others, unless there are too few side by side to make vectors of."""
    shape = arrays[0].shape
    inner = math.prod(shape[axis + 1 :])
    if axis == len(shape) - 1 or inner < FEW_COLUMNS:
        return along_last(_into(rows), arrays, axis)
    around = (math.prod(shape[:axis]), shape[axis], inner)
    return _into(columns)(*(np.ascontiguousarray(a).reshape(around) for a in arrays)).reshape(shape)


def _into(fill: Callable[..., None]) -> Callable[..., Array]:
    def run(*arrays: Array) -> Array:
        out = np.empty_like(arrays[0])
        fill(*arrays, out)
        return out

    return run


@kernel(spec.softmax, "cpu/numba-vectors", rank=22, formats=FORMATS)
def softmax(x: Array, *, axis: int) -> Array:
    return _along(axis, _softmax, numba_columns.softmax, x)


@kernel(spec.log_softmax, "cpu/numba-vectors", rank=22, formats=FORMATS)
def log_softmax(x: Array, *, axis: int) -> Array:
    return _along(axis, _log_softmax, numba_columns.log_softmax, x)


@kernel(spec.softmax_gradient, "cpu/numba-vectors", rank=22, formats=FORMATS)
def softmax_gradient(g: Array, y: Array, *, axis: int) -> Array:
    return _along(axis, _softmax_gradient, numba_columns.softmax_gradient, y, g)


@kernel(spec.log_softmax_gradient, "cpu/numba-vectors", rank=22, formats=FORMATS)
def log_softmax_gradient(g: Array, y: Array, *, axis: int) -> Array:
    return _along(axis, _log_softmax_gradient, numba_columns.log_softmax_gradient, y, g)
