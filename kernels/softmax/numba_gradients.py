"""Both gradients, a row at a time: one sweep for the sum, one for the result, while the row lies in the cache.

Next limit: the sum is one chain of additions, since its order is kept.
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
def _softmax_gradient(g, y, dx):  # type: ignore[no-untyped-def]
    for i in prange(y.shape[0]):
        dot = y.dtype.type(0)
        for j in range(y.shape[1]):
            dot += g[i, j] * y[i, j]
        for j in range(y.shape[1]):
            dx[i, j] = y[i, j] * (g[i, j] - dot)


@jit(parallel=True)
def _log_softmax_gradient(g, y, dx):  # type: ignore[no-untyped-def]
    for i in prange(y.shape[0]):
        total = y.dtype.type(0)
        for j in range(y.shape[1]):
            total += g[i, j]
        for j in range(y.shape[1]):
            dx[i, j] = g[i, j] - np.exp(y[i, j]) * total


def _into(fill: Callable[..., None]) -> Callable[..., Array]:
    def run(g: Array, y: Array) -> Array:
        dx = np.empty_like(y)
        fill(g, y, dx)
        return dx

    return run


@kernel(spec.softmax_gradient, "cpu/numba-rows", rank=20, formats=[float32, float64])
def softmax_gradient(g: Array, y: Array, *, axis: int) -> Array:
    return along_last(_into(_softmax_gradient), (g, y), axis)


@kernel(spec.log_softmax_gradient, "cpu/numba-rows", rank=20, formats=[float32, float64])
def log_softmax_gradient(g: Array, y: Array, *, axis: int) -> Array:
    return along_last(_into(_log_softmax_gradient), (g, y), axis)
