"""One row at a time: maximum, then exp and sum, then scaling, while the row lies in the cache. Memory is read and written once.

Next limit: the row itself is swept three times, and the maximum is a chain of dependent comparisons.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.softmax import spec
from ulpgrad.kernels.softmax.rows import along_last


@jit(parallel=True)
def _softmax(x, y):  # type: ignore[no-untyped-def]
    for i in prange(x.shape[0]):
        top = x.dtype.type(-np.inf)
        for j in range(x.shape[1]):
            if x[i, j] > top:  # a NaN is passed over here and reaches the sum
                top = x[i, j]
        total = x.dtype.type(0)
        for j in range(x.shape[1]):
            y[i, j] = np.exp(x[i, j] - top)
            total += y[i, j]
        for j in range(x.shape[1]):
            y[i, j] /= total


@jit(parallel=True)
def _log_softmax(x, y):  # type: ignore[no-untyped-def]
    for i in prange(x.shape[0]):
        top = x.dtype.type(-np.inf)
        for j in range(x.shape[1]):
            if x[i, j] > top:
                top = x[i, j]
        total = x.dtype.type(0)
        for j in range(x.shape[1]):
            total += np.exp(x[i, j] - top)
        total = np.log(total)
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] - top - total


@kernel(spec.softmax, "cpu/numba-three-pass", rank=20, formats=[float32, float64])
def softmax(x: Array, *, axis: int) -> Array:
    return along_last(_into(_softmax), (x,), axis)


@kernel(spec.log_softmax, "cpu/numba-three-pass", rank=20, formats=[float32, float64])
def log_softmax(x: Array, *, axis: int) -> Array:
    return along_last(_into(_log_softmax), (x,), axis)


def _into(fill: Callable[..., None]) -> Callable[..., Array]:
    def run(x: Array) -> Array:
        y = np.empty_like(x)
        fill(x, y)
        return y

    return run
