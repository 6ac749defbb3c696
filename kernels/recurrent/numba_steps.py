"""NumPy's product at each step, then one sweep through the cell's formulas instead of a NumPy call for each. Next limit: the
library packs the weights anew at every step, and exponentials one value at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.numba_jit import jit
from ulpgrad.kernels.recurrent import spec
from ulpgrad.kernels.recurrent.spec import Present
from ulpgrad.kernels.registry import kernel

FORMATS = [float32, float64]


@jit(fastmath={"contract"})
def sigmoid(x: Any, one: Any) -> Any:
    return one / (one + math.exp(-x))


@jit(fastmath={"contract"})
def lstm_step(x: Array, terms: Array, c_before: Array, c: Array, y: Array, gates: Array) -> None:
    size, one = y.shape[1], y.dtype.type(1)
    for i in range(len(y)):
        row, own, out = x[i], terms[i], gates[i]
        for j in range(size):
            a, b = sigmoid(row[j] + own[j], one), sigmoid(row[size + j] + own[size + j], one)
            new = math.tanh(row[2 * size + j] + own[2 * size + j])
            o = sigmoid(row[3 * size + j] + own[3 * size + j], one)
            out[j], out[size + j], out[2 * size + j], out[3 * size + j] = a, b, new, o
            c[i, j] = b * c_before[i, j] + a * new
            y[i, j] = o * math.tanh(c[i, j])


@jit(fastmath={"contract"})
def lstm_back(g: Array, gates: Array, c: Array, c_before: Array, dx: Array, dh: Array, dc: Array) -> None:
    size, one = g.shape[1], g.dtype.type(1)
    for i in range(len(g)):
        row, out = gates[i], dx[i]
        for j in range(size):
            a, b, new, o = row[j], row[size + j], row[2 * size + j], row[3 * size + j]
            d, t = dh[i, j] + g[i, j], math.tanh(c[i, j])
            own = dc[i, j] + d * o * (one - t * t)
            out[j], out[size + j] = own * new * a * (one - a), own * c_before[i, j] * b * (one - b)
            out[2 * size + j], out[3 * size + j] = own * a * (one - new * new), d * t * o * (one - o)
            dc[i, j] = own * b


@jit(fastmath={"contract"})
def gru_step(x: Array, terms: Array, h_before: Array, y: Array, gates: Array) -> None:
    size, one = y.shape[1], y.dtype.type(1)
    for i in range(len(y)):
        row, own, out = x[i], terms[i], gates[i]
        for j in range(size):
            r, z = sigmoid(row[j] + own[j], one), sigmoid(row[size + j] + own[size + j], one)
            new = math.tanh(row[2 * size + j] + r * own[2 * size + j])
            out[j], out[size + j], out[2 * size + j], out[3 * size + j] = r, z, new, own[2 * size + j]
            y[i, j] = (one - z) * new + z * h_before[i, j]


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


@jit(fastmath={"contract"})
def plain_step(x: Array, terms: Array, y: Array, is_tanh: bool) -> None:
    for i in range(len(y)):
        for j in range(y.shape[1]):
            value = x[i, j] + terms[i, j]
            y[i, j] = math.tanh(value) if is_tanh else (value - value if value < 0 else value)


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
