"""NumPy's product at each step, then the cell's formulas, row by row while it lies in the cache, with exponentials in vectors
instead of a NumPy call for each. Next limit: the library packs the weights anew at every step."""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.numba_jit import jit
from ulpgrad.kernels.numba_math import EXACT, ONE, ZERO, sigmoid, tanh
from ulpgrad.kernels.recurrent import spec
from ulpgrad.kernels.recurrent.spec import Present
from ulpgrad.kernels.registry import kernel

FORMATS = [float32, float64]


@jit(fastmath=EXACT, forceinline=True)
def _sigmoids(x, y, out):  # type: ignore[no-untyped-def]
    for j in range(len(out)):
        out[j] = sigmoid(x[j] + y[j])


@jit(fastmath=EXACT)
def lstm_step(x, terms, c_before, c, y, gates):  # type: ignore[no-untyped-def]
    size = y.shape[1]
    for i in range(len(y)):
        row, own, out, before, cell, result = x[i], terms[i], gates[i], c_before[i], c[i], y[i]
        a, b, new, o = out[:size], out[size : 2 * size], out[2 * size : 3 * size], out[3 * size :]
        _sigmoids(row[: 2 * size], own[: 2 * size], out[: 2 * size])
        _sigmoids(row[3 * size :], own[3 * size :], o)
        given, added = row[2 * size : 3 * size], own[2 * size : 3 * size]
        for j in range(size):
            new[j] = tanh(given[j] + added[j])
        for j in range(size):
            cell[j] = b[j] * before[j] + a[j] * new[j]
        for j in range(size):
            result[j] = o[j] * tanh(cell[j])


@jit(fastmath=EXACT)
def lstm_back(g, gates, c, c_before, dx, dh, dc):  # type: ignore[no-untyped-def]
    size = g.shape[1]
    for i in range(len(g)):
        row, out, cell = gates[i], dx[i], c[i]
        last = out[3 * size :]
        for j in range(size):
            last[j] = tanh(cell[j])
        for j in range(size):
            a, b, new, o = row[j], row[size + j], row[2 * size + j], row[3 * size + j]
            d, t = dh[i, j] + g[i, j], last[j]
            own = dc[i, j] + d * o * (ONE - t * t)
            out[j], out[size + j] = own * new * a * (ONE - a), own * c_before[i, j] * b * (ONE - b)
            out[2 * size + j], last[j] = own * a * (ONE - new * new), d * t * o * (ONE - o)
            dc[i, j] = own * b


@jit(fastmath=EXACT)
def gru_step(x, terms, h_before, y, gates):  # type: ignore[no-untyped-def]
    size = y.shape[1]
    for i in range(len(y)):
        row, own, out, before, result = x[i], terms[i], gates[i], h_before[i], y[i]
        r, z, new, kept = out[:size], out[size : 2 * size], out[2 * size : 3 * size], out[3 * size :]
        _sigmoids(row[: 2 * size], own[: 2 * size], out[: 2 * size])
        given = row[2 * size :]
        kept[:] = own[2 * size :]
        for j in range(size):
            new[j] = tanh(given[j] + r[j] * kept[j])
        for j in range(size):
            result[j] = (ONE - z[j]) * new[j] + z[j] * before[j]


@jit(fastmath={"contract"})
def gru_back(g: Array, gates: Array, h_before: Array, dx: Array, own: Array, dh: Array) -> None:
    size, one = g.shape[1], g.dtype.type(1)
    for i in range(len(g)):
        row, out, terms = gates[i], dx[i], own[i]
        for j in range(size):
            r, z, new = row[j], row[size + j], row[2 * size + j]
            d = dh[i, j] + g[i, j]
            dn = d * (one - z) * (one - new * new)
            dz, dr = d * (h_before[i, j] - new) * z * (one - z), dn * row[3 * size + j] * r * (one - r)
            out[j], out[size + j], out[2 * size + j] = dr, dz, dn
            terms[j], terms[size + j], terms[2 * size + j] = dr, dz, dn * r
            dh[i, j] = d * z


@jit(fastmath=EXACT)
def plain_step(x, terms, y, is_tanh):  # type: ignore[no-untyped-def]
    for i in range(len(y)):
        row, own, out = x[i], terms[i], y[i]
        for j in range(len(out)):
            value = row[j] + own[j]
            out[j] = tanh(value) if is_tanh else (value - value if value < ZERO else value)


@jit(fastmath={"contract"})
def plain_back(g: Array, y: Array, dx: Array, dh: Array, is_tanh: bool) -> None:
    one = g.dtype.type(1)
    for i in range(len(g)):
        for j in range(g.shape[1]):
            d, value = dh[i, j] + g[i, j], y[i, j]
            dx[i, j] = d * (one - value * value) if is_tanh else (d if value > 0 else d - d)


def _terms(h: Array, weight: Array, bias: Present, out: Array) -> Array:
    np.matmul(h, weight.T, out=out)
    if bias is not None:
        out += bias
    return out


def _before(states: Array, first: Array, t: int, reverse: bool) -> Array:
    at = t + 1 if reverse else t - 1
    return states[at] if 0 <= at < len(states) else first


def _weights(own: Array, y: Array, h0: Array, reverse: bool) -> tuple[Array, Array]:
    """The gradients of weight and bias: one product over all steps."""
    before = np.concatenate([y[1:], h0[None]] if reverse else [h0[None], y[:-1]])
    rows = own.reshape(-1, own.shape[2]) if own.size else np.zeros((0, own.shape[2]), own.dtype)
    return rows.T @ before.reshape(len(rows), h0.shape[1]), rows.sum(axis=0)


@kernel(spec.lstm, "cpu/numba-steps", rank=30, formats=FORMATS, contiguous=True)
def lstm(x: Array, weight: Array, bias: Present, h0: Array, c0: Array, *, reverse: bool) -> tuple[Array, Array, Array]:
    steps, n, rows = x.shape
    y, c, gates = np.empty((steps + 1, *h0.shape), x.dtype), np.empty((steps, *h0.shape), x.dtype), np.empty_like(x)
    terms = np.empty((n, rows), x.dtype)
    for t in spec.order(steps, reverse):
        h, before = _before(y[:steps], h0, t, reverse), _before(c, c0, t, reverse)
        lstm_step(x[t], _terms(h, weight, bias, terms), before, c[t], y[t], gates[t])
    y[steps] = c[0 if reverse else -1]
    return y, c, gates


@kernel(spec.lstm_gradient, "cpu/numba-steps", rank=30, formats=FORMATS, contiguous=True, where=spec.one_format)
def lstm_gradient(
    g: Array, weight: Array, h0: Array, c0: Array, y: Array, c: Array, gates: Array, *, reverse: bool
) -> tuple[Array, ...]:
    steps, dx, dh, dc = len(gates), np.empty_like(gates), np.zeros_like(h0), g[-1].copy()
    for t in reversed(spec.order(steps, reverse)):
        lstm_back(g[t], gates[t], c[t], _before(c, c0, t, reverse), dx[t], dh, dc)
        np.matmul(dx[t], weight, out=dh)
    return dx, *_weights(dx, y[:steps], h0, reverse), dh, dc


@kernel(spec.gru, "cpu/numba-steps", rank=30, formats=FORMATS, contiguous=True)
def gru(x: Array, weight: Array, bias: Present, h0: Array, *, reverse: bool) -> tuple[Array, Array]:
    steps, n, rows = x.shape
    y, gates = np.empty((steps, *h0.shape), x.dtype), np.empty((steps, n, 4 * h0.shape[1]), x.dtype)
    terms = np.empty((n, rows), x.dtype)
    for t in spec.order(steps, reverse):
        before = _before(y, h0, t, reverse)
        gru_step(x[t], _terms(before, weight, bias, terms), before, y[t], gates[t])
    return y, gates


@kernel(spec.gru_gradient, "cpu/numba-steps", rank=30, formats=FORMATS, contiguous=True, where=spec.one_format)
def gru_gradient(g: Array, weight: Array, h0: Array, y: Array, gates: Array, *, reverse: bool) -> tuple[Array, ...]:
    dx, dh = np.empty((*y.shape[:2], len(weight)), g.dtype), np.zeros_like(h0)
    own = np.empty_like(dx)
    for t in reversed(spec.order(len(y), reverse)):
        gru_back(g[t], gates[t], _before(y, h0, t, reverse), dx[t], own[t], dh)
        dh += own[t] @ weight
    return dx, *_weights(own, y, h0, reverse), dh


@kernel(spec.rnn, "cpu/numba-steps", rank=30, formats=FORMATS, contiguous=True)
def rnn(x: Array, weight: Array, bias: Present, h0: Array, *, reverse: bool, nonlinearity: str) -> Array:
    y, terms = np.empty_like(x), np.empty_like(h0)
    for t in spec.order(len(x), reverse):
        plain_step(x[t], _terms(_before(y, h0, t, reverse), weight, bias, terms), y[t], nonlinearity == "tanh")
    return y


@kernel(spec.rnn_gradient, "cpu/numba-steps", rank=30, formats=FORMATS, contiguous=True, where=spec.one_format)
def rnn_gradient(
    g: Array, weight: Array, h0: Array, y: Array, *, reverse: bool, nonlinearity: str
) -> tuple[Array, ...]:
    dx, dh = np.empty_like(y), np.zeros_like(h0)
    for t in reversed(spec.order(len(y), reverse)):
        plain_back(g[t], y[t], dx[t], dh, nonlinearity == "tanh")
        np.matmul(dx[t], weight, out=dh)
    return dx, *_weights(dx, y, h0, reverse), dh
