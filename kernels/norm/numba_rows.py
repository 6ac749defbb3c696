"""A row (or channel) at a time, swept in vectors for its mean, its variance and its result while it lies in the cache.

Gradients of the parameters are added over fixed runs of 64 rows, then over the runs in order: the same bits on any number
of threads. Next limit: memory, and the sweeps of a row in the first cache.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.norm import spec
from ulpgrad.kernels.norm.spec import Present, as_rows
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.numba_math import ONE, ZERO, T
from ulpgrad.kernels.numba_rows import SUM, dot, squares, total
from ulpgrad.kernels.registry import kernel

FORMATS = [float32, float64]
RUN, COLUMNS = 64, 64


@jit(fastmath=SUM, forceinline=True)
def _slope(g, x, weight, middle, scale):  # type: ignore[no-untyped-def]
    """The sum of g weight (x - middle) scale"""
    found = ZERO
    for j in range(x.size):
        found += g[j] * weight[j] * ((x[j] - middle) * scale)
    return found


@jit(fastmath=SUM, forceinline=True)
def _channel_slope(g, x, middle, scale):  # type: ignore[no-untyped-def]
    """The sum of g (x - middle) scale"""
    found = ZERO
    for j in range(x.size):
        found += g[j] * ((x[j] - middle) * scale)
    return found


@jit(parallel=True)
def _forward(x, weight, bias, eps, centered, y, mean, rstd):  # type: ignore[no-untyped-def]
    rows, n = x.shape
    for i in prange(rows):
        row, out = x[i], y[i]
        middle = total(row) / T(n) if centered else ZERO
        scale = ONE / np.sqrt(squares(row, middle) / T(n) + T(eps))
        for j in range(n):
            out[j] = (row[j] - middle) * scale * weight[j] + bias[j]
        mean[i] = middle
        rstd[i] = scale


@jit(parallel=True)
def _gradient(x, g, weight, mean, rstd, centered, dx, parts):  # type: ignore[no-untyped-def]
    rows, n = x.shape
    for k in prange(parts.shape[0]):
        dweight, dbias = parts[k, 0], parts[k, 1]
        for i in range(k * RUN, min((k + 1) * RUN, rows)):
            row, slopes, out, middle, scale = x[i], g[i], dx[i], mean[i], rstd[i]
            constant = dot(slopes, weight) / T(n) if centered else ZERO
            slope = _slope(slopes, row, weight, middle, scale) / T(n)
            for j in range(n):
                normal = (row[j] - middle) * scale
                dweight[j] += slopes[j] * normal
                dbias[j] += slopes[j]
                out[j] = scale * (slopes[j] * weight[j] - constant - normal * slope)


@jit(parallel=True)
def _channels(x, weight, bias, eps, y, mean, rstd):  # type: ignore[no-untyped-def]
    n, channels, size = x.shape
    count = T(n * size)
    for c in prange(channels):
        middle = ZERO
        for i in range(n):
            middle += total(x[i, c])
        middle /= count
        spread = ZERO
        for i in range(n):
            spread += squares(x[i, c], middle)
        scale = ONE / np.sqrt(spread / count + T(eps))
        for i in range(n):
            row, out = x[i, c], y[i, c]
            for j in range(size):
                out[j] = (row[j] - middle) * scale * weight[c] + bias[c]
        mean[c] = middle
        rstd[c] = scale


@jit(parallel=True)
def _channel_gradient(x, g, weight, mean, rstd, dx, dweight, dbias):  # type: ignore[no-untyped-def]
    n, channels, size = x.shape
    count = T(n * size)
    for c in prange(channels):
        constant, slope, middle, scale = ZERO, ZERO, mean[c], rstd[c]
        for i in range(n):
            constant += total(g[i, c])
            slope += _channel_slope(g[i, c], x[i, c], middle, scale)
        dbias[c] = constant
        dweight[c] = slope
        constant /= count
        slope /= count
        factor = weight[c] * scale
        for i in range(n):
            row, slopes, out = x[i, c], g[i, c], dx[i, c]
            for j in range(size):
                out[j] = factor * (slopes[j] - (constant + (row[j] - middle) * scale * slope))


@jit(parallel=True)
def _columns(x, weight, bias, eps, y, mean, rstd):  # type: ignore[no-untyped-def]
    """[n, channels], where a channel's values lie far apart: all rows, 64 channels side by side."""
    n, channels = x.shape
    for block in prange((channels + COLUMNS - 1) // COLUMNS):
        first, last = block * COLUMNS, min((block + 1) * COLUMNS, channels)
        middle, scale, w, b = mean[first:last], rstd[first:last], weight[first:last], bias[first:last]
        middle[:] = ZERO
        scale[:] = ZERO
        for i in range(n):
            row = x[i, first:last]
            for j in range(row.size):
                middle[j] += row[j]
        for j in range(middle.size):
            middle[j] /= T(n)
        for i in range(n):
            row = x[i, first:last]
            for j in range(row.size):
                scale[j] += (row[j] - middle[j]) * (row[j] - middle[j])
        for j in range(scale.size):
            scale[j] = ONE / np.sqrt(scale[j] / T(n) + T(eps))
        for i in range(n):
            row, out = x[i, first:last], y[i, first:last]
            for j in range(row.size):
                out[j] = (row[j] - middle[j]) * scale[j] * w[j] + b[j]


@jit(parallel=True)
def _column_gradient(x, g, weight, mean, rstd, dx, dweight, dbias):  # type: ignore[no-untyped-def]
    n, channels = x.shape
    for block in prange((channels + COLUMNS - 1) // COLUMNS):
        first, last = block * COLUMNS, min((block + 1) * COLUMNS, channels)
        middle, scale, w = mean[first:last], rstd[first:last], weight[first:last]
        slope, constant = dweight[first:last], dbias[first:last]
        slope[:] = ZERO
        constant[:] = ZERO
        for i in range(n):
            row, slopes = x[i, first:last], g[i, first:last]
            for j in range(row.size):
                constant[j] += slopes[j]
                slope[j] += slopes[j] * ((row[j] - middle[j]) * scale[j])
        for i in range(n):
            row, slopes, out = x[i, first:last], g[i, first:last], dx[i, first:last]
            for j in range(row.size):
                normal = (row[j] - middle[j]) * scale[j]
                out[j] = w[j] * scale[j] * (slopes[j] - (constant[j] + normal * slope[j]) / T(n))


def _or(given: Present, value: float, size: int, like: Array) -> Array:
    return np.full(size, value, like.dtype) if given is None else given


def _rows(x: Array, weight: Present, bias: Present, eps: float, centered: bool) -> tuple[Array, Array, Array]:
    rows, n = as_rows(x), x.shape[-1]
    y, mean, rstd = np.empty_like(rows), np.empty(len(rows), x.dtype), np.empty(len(rows), x.dtype)
    _forward(rows, _or(weight, 1, n, x), _or(bias, 0, n, x), eps, centered, y, mean, rstd)
    return y.reshape(x.shape), mean.reshape(x.shape[:-1]), rstd.reshape(x.shape[:-1])


def _row_gradients(g: Array, x: Array, weight: Present, mean: Present, rstd: Array) -> tuple[Array, Array, Array]:
    rows, n = as_rows(x), x.shape[-1]
    dx, parts = np.empty_like(rows), np.zeros((-(-len(rows) // RUN), 2, n), x.dtype)
    centered = mean is not None
    middle = np.zeros(len(rows), x.dtype) if mean is None else mean.reshape(-1)
    _gradient(rows, as_rows(g), _or(weight, 1, n, x), middle, rstd.reshape(-1), centered, dx, parts)
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
    n, c, size = x.shape
    y, mean, rstd = np.empty_like(x), np.empty(c, x.dtype), np.empty(c, x.dtype)
    fill, shape = (_columns, (n, c)) if size == 1 else (_channels, x.shape)
    fill(x.reshape(shape), _or(weight, 1, c, x), _or(bias, 0, c, x), eps, y.reshape(shape), mean, rstd)
    return y, mean, rstd


@kernel(
    spec.batch_norm_gradient, "cpu/numba-channels", rank=20, formats=FORMATS, contiguous=True, where=spec.one_format
)
def batch_norm_gradient(g: Array, x: Array, weight: Present, mean: Array, rstd: Array) -> tuple[Array, Array, Array]:
    n, c, size = x.shape
    dx, dweight, dbias = np.empty_like(x), np.empty(c, x.dtype), np.empty(c, x.dtype)
    fill, shape = (_column_gradient, (n, c)) if size == 1 else (_channel_gradient, x.shape)
    fill(x.reshape(shape), g.reshape(shape), _or(weight, 1, c, x), mean, rstd, dx.reshape(shape), dweight, dbias)
    return dx, dweight, dbias
