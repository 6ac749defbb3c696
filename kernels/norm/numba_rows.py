"""A row (or channel) at a time, swept for its mean, its variance and its result while it lies in the cache.

Gradients of the parameters are added over fixed runs of 64 rows, then over the runs in order: the same bits on any number
of threads. Next limit: sums are single chains of additions, since their order is kept.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.norm import spec
from ulpgrad.kernels.norm.spec import Present, as_rows
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.registry import kernel

FORMATS = [float32, float64]
RUN = 64


@jit(parallel=True)
def _forward(x, weight, bias, eps, centered, y, mean, rstd):  # type: ignore[no-untyped-def]
    kind = x.dtype.type
    rows, n = x.shape
    for i in prange(rows):
        middle = kind(0)
        if centered:
            for j in range(n):
                middle += x[i, j]
            middle /= kind(n)
        squares = kind(0)
        for j in range(n):
            squares += (x[i, j] - middle) * (x[i, j] - middle)
        scale = kind(1) / np.sqrt(squares / kind(n) + eps)
        for j in range(n):
            y[i, j] = (x[i, j] - middle) * scale * weight[j] + bias[j]
        mean[i] = middle
        rstd[i] = scale


@jit(parallel=True)
def _gradient(g, x, weight, mean, rstd, centered, dx, parts):  # type: ignore[no-untyped-def]
    kind = x.dtype.type
    rows, n = x.shape
    for k in prange(parts.shape[0]):
        for i in range(k * RUN, min((k + 1) * RUN, rows)):
            constant, slope = kind(0), kind(0)
            for j in range(n):
                normal = (x[i, j] - mean[i]) * rstd[i]
                constant += g[i, j] * weight[j]
                slope += g[i, j] * weight[j] * normal
                parts[k, 0, j] += g[i, j] * normal
                parts[k, 1, j] += g[i, j]
            constant = constant / kind(n) if centered else kind(0)
            slope /= kind(n)
            for j in range(n):
                normal = (x[i, j] - mean[i]) * rstd[i]
                dx[i, j] = rstd[i] * (g[i, j] * weight[j] - constant - normal * slope)


@jit(parallel=True)
def _channels(x, weight, bias, eps, y, mean, rstd):  # type: ignore[no-untyped-def]
    kind = x.dtype.type
    n, channels, size = x.shape
    count = kind(n * size)
    for c in prange(channels):
        middle = kind(0)
        for i in range(n):
            part = kind(0)
            for j in range(size):
                part += x[i, c, j]
            middle += part
        middle /= count
        squares = kind(0)
        for i in range(n):
            part = kind(0)
            for j in range(size):
                part += (x[i, c, j] - middle) * (x[i, c, j] - middle)
            squares += part
        scale = kind(1) / np.sqrt(squares / count + eps)
        for i in range(n):
            for j in range(size):
                y[i, c, j] = (x[i, c, j] - middle) * scale * weight[c] + bias[c]
        mean[c] = middle
        rstd[c] = scale


@jit(parallel=True)
def _channel_gradient(g, x, weight, mean, rstd, dx, dweight, dbias):  # type: ignore[no-untyped-def]
    kind = x.dtype.type
    n, channels, size = x.shape
    count = kind(n * size)
    for c in prange(channels):
        constant, slope = kind(0), kind(0)
        for i in range(n):
            total, dot = kind(0), kind(0)
            for j in range(size):
                total += g[i, c, j]
                dot += g[i, c, j] * ((x[i, c, j] - mean[c]) * rstd[c])
            constant += total
            slope += dot
        dbias[c] = constant
        dweight[c] = slope
        for i in range(n):
            for j in range(size):
                normal = (x[i, c, j] - mean[c]) * rstd[c]
                dx[i, c, j] = weight[c] * rstd[c] * (g[i, c, j] - (constant + normal * slope) / count)


def _or(given: Present, value: float, size: int, like: Array) -> Array:
    return np.full(size, value, like.dtype) if given is None else given


def _rows(x: Array, weight: Present, bias: Present, eps: float, centered: bool) -> tuple[Array, Array, Array]:
    rows, n = as_rows(x), x.shape[-1]
    y, mean, rstd = np.empty_like(rows), np.empty(len(rows), x.dtype), np.empty(len(rows), x.dtype)
    _forward(rows, _or(weight, 1, n, x), _or(bias, 0, n, x), x.dtype.type(eps), centered, y, mean, rstd)
    return y.reshape(x.shape), mean.reshape(x.shape[:-1]), rstd.reshape(x.shape[:-1])


def _row_gradients(g: Array, x: Array, weight: Present, mean: Present, rstd: Array) -> tuple[Array, Array, Array]:
    rows, n = as_rows(x), x.shape[-1]
    dx, parts = np.empty_like(rows), np.zeros((-(-len(rows) // RUN), 2, n), x.dtype)
    centered = mean is not None
    middle = np.zeros(len(rows), x.dtype) if mean is None else mean.reshape(-1)
    _gradient(as_rows(g), rows, _or(weight, 1, n, x), middle, rstd.reshape(-1), centered, dx, parts)
    dweight, dbias = parts.sum(axis=0)
    return dx.reshape(x.shape), dweight, dbias


@kernel(spec.layer_norm, "cpu/numba-rows", rank=20, formats=FORMATS, contiguous=True)
def layer_norm(x: Array, weight: Present, bias: Present, *, eps: float) -> tuple[Array, Array, Array]:
    return _rows(x, weight, bias, eps, True)


@kernel(spec.layer_norm_gradient, "cpu/numba-rows", rank=20, formats=FORMATS, contiguous=True, where=spec.one_format)
def layer_norm_gradient(g: Array, x: Array, weight: Present, mean: Array, rstd: Array) -> tuple[Array, Array, Array]:
    return _row_gradients(g, x, weight, mean, rstd)


@kernel(spec.rms_norm, "cpu/numba-rows", rank=20, formats=FORMATS, contiguous=True)
def rms_norm(x: Array, weight: Present, *, eps: float) -> tuple[Array, Array]:
    y, _, rstd = _rows(x, weight, None, eps, False)
    return y, rstd


@kernel(spec.rms_norm_gradient, "cpu/numba-rows", rank=20, formats=FORMATS, contiguous=True, where=spec.one_format)
def rms_norm_gradient(g: Array, x: Array, weight: Present, rstd: Array) -> tuple[Array, Array]:
    dx, dweight, _ = _row_gradients(g, x, weight, None, rstd)
    return dx, dweight


@kernel(spec.batch_norm, "cpu/numba-channels", rank=20, formats=FORMATS, contiguous=True)
def batch_norm(x: Array, weight: Present, bias: Present, *, eps: float) -> tuple[Array, Array, Array]:
    c = x.shape[1]
    y, mean, rstd = np.empty_like(x), np.empty(c, x.dtype), np.empty(c, x.dtype)
    _channels(x, _or(weight, 1, c, x), _or(bias, 0, c, x), x.dtype.type(eps), y, mean, rstd)
    return y, mean, rstd


@kernel(
    spec.batch_norm_gradient, "cpu/numba-channels", rank=20, formats=FORMATS, contiguous=True, where=spec.one_format
)
def batch_norm_gradient(g: Array, x: Array, weight: Present, mean: Array, rstd: Array) -> tuple[Array, Array, Array]:
    c = x.shape[1]
    dx, dweight, dbias = np.empty_like(x), np.empty(c, x.dtype), np.empty(c, x.dtype)
    _channel_gradient(g, x, _or(weight, 1, c, x), mean, rstd, dx, dweight, dbias)
    return dx, dweight, dbias
