"""Softmax along another axis than the last, for numba_vectors.py: 64 columns are taken together, so that memory is read along
its lines and nothing has to be moved. All arrays are [outer, n, inner]."""

from __future__ import annotations

import numpy as np

from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.numba_math import INFINITY, ONE, ZERO, exp_of_shifted

COLUMNS = 64


@jit(forceinline=True)
def _largest(x, first, last):  # type: ignore[no-untyped-def]
    """The largest value of each column; NaN is passed over."""
    top = np.full(last - first, -INFINITY)
    for k in range(x.shape[0]):
        row = x[k, first:last]
        for j in range(row.size):
            top[j] = row[j] if row[j] > top[j] else top[j]
    return top


@jit(parallel=True)
def softmax(x, y):  # type: ignore[no-untyped-def]
    outer, n, inner = x.shape
    blocks = (inner + COLUMNS - 1) // COLUMNS
    for t in prange(outer * blocks):
        i, first = t // blocks, t % blocks * COLUMNS
        last = min(first + COLUMNS, inner)
        top = _largest(x[i], first, last)
        scale = np.full(last - first, ZERO)
        for k in range(n):
            row, out = x[i, k, first:last], y[i, k, first:last]
            for j in range(row.size):
                e = exp_of_shifted(row[j] - top[j])
                out[j] = e
                scale[j] += e
        for j in range(scale.size):
            scale[j] = ONE / scale[j]
        for k in range(n):
            out = y[i, k, first:last]
            for j in range(out.size):
                out[j] *= scale[j]


@jit(parallel=True)
def log_softmax(x, y):  # type: ignore[no-untyped-def]
    outer, n, inner = x.shape
    blocks = (inner + COLUMNS - 1) // COLUMNS
    for t in prange(outer * blocks):
        i, first = t // blocks, t % blocks * COLUMNS
        last = min(first + COLUMNS, inner)
        top = _largest(x[i], first, last)
        log = np.full(last - first, ZERO)
        for k in range(n):
            row = x[i, k, first:last]
            for j in range(row.size):
                log[j] += exp_of_shifted(row[j] - top[j])
        for j in range(log.size):
            log[j] = np.log(log[j])
        for k in range(n):
            row, out = x[i, k, first:last], y[i, k, first:last]
            for j in range(row.size):
                out[j] = row[j] - top[j] - log[j]


@jit(parallel=True)
def softmax_gradient(y, g, dx):  # type: ignore[no-untyped-def]
    outer, n, inner = y.shape
    blocks = (inner + COLUMNS - 1) // COLUMNS
    for t in prange(outer * blocks):
        i, first = t // blocks, t % blocks * COLUMNS
        last = min(first + COLUMNS, inner)
        middle = np.full(last - first, ZERO)
        for k in range(n):
            row, slope = y[i, k, first:last], g[i, k, first:last]
            for j in range(row.size):
                middle[j] += slope[j] * row[j]
        for k in range(n):
            row, slope, out = y[i, k, first:last], g[i, k, first:last], dx[i, k, first:last]
            for j in range(row.size):
                out[j] = row[j] * (slope[j] - middle[j])


@jit(parallel=True)
def log_softmax_gradient(y, g, dx):  # type: ignore[no-untyped-def]
    outer, n, inner = y.shape
    blocks = (inner + COLUMNS - 1) // COLUMNS
    for t in prange(outer * blocks):
        i, first = t // blocks, t % blocks * COLUMNS
        last = min(first + COLUMNS, inner)
        total = np.full(last - first, ZERO)
        for k in range(n):
            slope = g[i, k, first:last]
            for j in range(slope.size):
                total[j] += slope[j]
        for k in range(n):
            row, slope, out = y[i, k, first:last], g[i, k, first:last], dx[i, k, first:last]
            for j in range(row.size):
                out[j] = slope[j] - exp_of_shifted(row[j]) * total[j]
