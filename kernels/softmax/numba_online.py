"""Maximum and sum in one sweep (Milakov and Gimelshein 2018): when a larger value comes, the sum so far is rescaled.

A row is read twice instead of three times, which pays once rows outgrow the cache. Next limit: exp, a scalar call per
value in Numba, and now taken twice.
"""

from __future__ import annotations

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
        total = x.dtype.type(0)
        one = x.dtype.type(1)
        for j in range(x.shape[1]):
            v = x[i, j]
            if v > top:
                total = total * np.exp(top - v) + (one + (v - v))  # v - v: an infinite maximum gives NaN
                top = v
            elif v == top:
                total += one
            else:
                total += np.exp(v - top)
        for j in range(x.shape[1]):
            y[i, j] = np.exp(x[i, j] - top) / total


@kernel(spec.softmax, "cpu/numba-online", rank=21, formats=[float32, float64])
def softmax(x: Array, *, axis: int) -> Array:
    def run(rows: Array) -> Array:
        y = np.empty_like(rows)
        _softmax(rows, y)
        return y

    return along_last(run, (x,), axis)
