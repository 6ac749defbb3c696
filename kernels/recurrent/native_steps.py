"""C++: the weights are packed once; each step is one product whose tiles of sums go through the cell's formulas while they
are in the L1 cache. Threads share out batch rows for the whole sequence, or, where those are few, the units of each step.

Gradients of the weights are one product over all steps. One step alone (a cell) leaves its product to matmul, which does
not pack for so little. Next limit: FMAs, in tiles that are as high as the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.recurrent import spec
from ulpgrad.kernels.recurrent.spec import Present
from ulpgrad.kernels.registry import kernel

FORMATS = [float32, float64]


def _forward(cell: str, x: Array, weight: Array, bias: Present, h0: Array, c0: Present, reverse: bool) -> Any:
    run, is_one = native.module(), len(x) == 1
    given = run.matmul(h0, weight.T) if is_one else None
    return run.recurrent(cell, x, None if is_one else weight, given, bias, h0, c0, reverse)


def _gradient(
    cell: str, g: Array, weight: Array, h0: Array, c0: Present, y: Array, c: Present, saved: Present, reverse: bool
) -> tuple[Array, Array, Array, Array, Array]:
    """dx, dweight, dbias, dh0, dc0."""
    run, is_one = native.module(), len(y) - (c0 is not None) == 1
    dx, own, dh, dc = run.recurrent_gradient(cell, g, None if is_one else weight, h0, c0, y, c, saved, reverse)
    if is_one:
        dh += run.matmul(own[0], weight)
    rows = own.reshape(len(own) * len(h0), len(weight))
    n, last = len(h0), len(rows) - len(h0)  # the steps but the first one run, against the states before them
    later, states, first = (
        (rows[:last], y[1 : len(own)], rows[last:]) if reverse else (rows[n:], y[: len(own) - 1], rows[:n])
    )
    dweight = run.matmul(first.T, h0)
    if len(own) > 1:
        dweight += run.matmul(later.T, states.reshape(last, weight.shape[1]))
    dbias = run.matmul(np.ones((1, len(rows)), rows.dtype), rows)[0]
    return dx, dweight, dbias, dh, dc


@kernel(spec.lstm, "cpu/native-steps", rank=50, formats=FORMATS, contiguous=True)
def lstm(x: Array, weight: Array, bias: Present, h0: Array, c0: Array, *, reverse: bool) -> Any:
    return _forward("lstm", x, weight, bias, h0, c0, reverse)


@kernel(spec.lstm_gradient, "cpu/native-steps", rank=50, formats=FORMATS, contiguous=True, where=spec.one_format)
def lstm_gradient(
    g: Array, weight: Array, h0: Array, c0: Array, y: Array, c: Array, gates: Array, *, reverse: bool
) -> Any:
    return _gradient("lstm", g, weight, h0, c0, y, c, gates, reverse)


@kernel(spec.gru, "cpu/native-steps", rank=50, formats=FORMATS, contiguous=True)
def gru(x: Array, weight: Array, bias: Present, h0: Array, *, reverse: bool) -> Any:
    y, _, gates = _forward("gru", x, weight, bias, h0, None, reverse)
    return y, gates


@kernel(spec.gru_gradient, "cpu/native-steps", rank=50, formats=FORMATS, contiguous=True, where=spec.one_format)
def gru_gradient(g: Array, weight: Array, h0: Array, y: Array, gates: Array, *, reverse: bool) -> Any:
    return _gradient("gru", g, weight, h0, None, y, None, gates, reverse)[:4]


@kernel(spec.rnn, "cpu/native-steps", rank=50, formats=FORMATS, contiguous=True)
def rnn(x: Array, weight: Array, bias: Present, h0: Array, *, reverse: bool, nonlinearity: str) -> Any:
    return _forward(nonlinearity, x, weight, bias, h0, None, reverse)[0]


@kernel(spec.rnn_gradient, "cpu/native-steps", rank=50, formats=FORMATS, contiguous=True, where=spec.one_format)
def rnn_gradient(g: Array, weight: Array, h0: Array, y: Array, *, reverse: bool, nonlinearity: str) -> Any:
    return _gradient(nonlinearity, g, weight, h0, None, y, None, None, reverse)[:4]
