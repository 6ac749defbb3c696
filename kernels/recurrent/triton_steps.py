"""One launch a step: a tile's product with the state of the step before, and the cell's formulas on it while it is in registers.

Backwards the same: the gradient of a step's state is a product with what the step behind it left, and goes through the formulas
where it was made. The gradients of the weights are one product over all steps. Next limit: a launch per step, each of which reads
the weights anew; for short rows of a batch the time is that of launching.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.formats import float32, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.recurrent import spec
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton
from ulpgrad.kernels.triton_math import sigmoid, tanh

FORMATS = (float32, float64)


@triton.jit
def _columns(weight, gate, size, k, j):
    """The weights of one gate as a right operand, [k, j]."""
    return tl.load(weight + (gate * size + j)[None, :].to(tl.int64) * size + k[:, None],
                   mask=(k < size)[:, None] & (j < size)[None, :], other=0)  # fmt: skip


@triton.jit
def _term(total, bias, gate, size, j):
    if bias is not None:
        total += tl.load(bias + gate * size + j, mask=j < size, other=0)[None, :]
    return total


@triton.jit
def recurrent_step(
    y, cells, gates, x, weight, bias, h, c, batch, size,
    CELL: tl.constexpr, TANH: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The states after one step, for a tile of batch rows and hidden columns."""
    across = tl.cdiv(size, N)
    i = tl.program_id(0) // across * M + tl.arange(0, M)
    j = tl.program_id(0) % across * N + tl.arange(0, N)
    row, here = i.to(tl.int64)[:, None], (i < batch)[:, None] & (j < size)[None, :]
    TYPE: tl.constexpr = x.dtype.element_ty
    a = tl.zeros((M, N), TYPE)
    b, n, o = a, a, a
    for start in range(0, size, K):
        k = start + tl.arange(0, K)
        before = tl.load(h + row * size + k[None, :], mask=(i < batch)[:, None] & (k < size)[None, :], other=0)
        a = tl.dot(before, _columns(weight, 0, size, k, j), a, input_precision=PRECISION, out_dtype=TYPE)
        if CELL != "rnn":
            b = tl.dot(before, _columns(weight, 1, size, k, j), b, input_precision=PRECISION, out_dtype=TYPE)
            n = tl.dot(before, _columns(weight, 2, size, k, j), n, input_precision=PRECISION, out_dtype=TYPE)
        if CELL == "lstm":
            o = tl.dot(before, _columns(weight, 3, size, k, j), o, input_precision=PRECISION, out_dtype=TYPE)
    state = row * size + j[None, :]
    a = _term(a, bias, 0, size, j)
    if CELL == "rnn":
        value = tl.load(x + state, mask=here, other=0) + a
        if TANH:
            value = tanh(value)
        else:
            value = tl.where(value < 0, 0.0, value)
        tl.store(y + state, value, mask=here)
    elif CELL == "gru":
        given, kept = x + row * (3 * size) + j[None, :], gates + row * (4 * size) + j[None, :]
        r = sigmoid(tl.load(given, mask=here, other=0) + a)
        z = sigmoid(tl.load(given + size, mask=here, other=0) + _term(b, bias, 1, size, j))
        own = _term(n, bias, 2, size, j)
        new = tanh(tl.load(given + 2 * size, mask=here, other=0) + r * own)
        tl.store(y + state, (1 - z) * new + z * tl.load(h + state, mask=here, other=0), mask=here)
        tl.store(kept, r, mask=here)
        tl.store(kept + size, z, mask=here)
        tl.store(kept + 2 * size, new, mask=here)
        tl.store(kept + 3 * size, own, mask=here)
    else:
        given, kept = x + row * (4 * size) + j[None, :], gates + row * (4 * size) + j[None, :]
        a = sigmoid(tl.load(given, mask=here, other=0) + a)
        f = sigmoid(tl.load(given + size, mask=here, other=0) + _term(b, bias, 1, size, j))
        new = tanh(tl.load(given + 2 * size, mask=here, other=0) + _term(n, bias, 2, size, j))
        o = sigmoid(tl.load(given + 3 * size, mask=here, other=0) + _term(o, bias, 3, size, j))
        cell = f * tl.load(c + state, mask=here, other=0) + a * new
        tl.store(cells + state, cell, mask=here)
        tl.store(y + state, o * tanh(cell), mask=here)
        tl.store(kept, a, mask=here)
        tl.store(kept + size, f, mask=here)
        tl.store(kept + 2 * size, new, mask=here)
        tl.store(kept + 3 * size, o, mask=here)


@triton.jit
def recurrent_back(
    dx, own, dh, held, g, behind, weight, gates, state, before, batch, size,
    CELL: tl.constexpr, TANH: tl.constexpr, WIDE: tl.constexpr, LAST: tl.constexpr, FIRST: tl.constexpr,
    M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The gradients of one step's gates. `behind`: those of the step after it (FIRST: there is none); `held`: what passes by the
    gates, in place. LAST: behind the first step, where the gradient of its state is the result."""
    across = tl.cdiv(size, N)
    i = tl.program_id(0) // across * M + tl.arange(0, M)
    j = tl.program_id(0) % across * N + tl.arange(0, N)
    row, here = i.to(tl.int64)[:, None], (i < batch)[:, None] & (j < size)[None, :]
    at = row * size + j[None, :]
    TYPE: tl.constexpr = weight.dtype.element_ty
    d = tl.zeros((M, N), TYPE)
    if not FIRST:
        for start in range(0, WIDE * size, K):
            k = start + tl.arange(0, K)
            left = tl.load(behind + row * (WIDE * size) + k[None, :],
                           mask=(i < batch)[:, None] & (k < WIDE * size)[None, :], other=0)  # fmt: skip
            right = tl.load(weight + k.to(tl.int64)[:, None] * size + j[None, :],
                            mask=(k < WIDE * size)[:, None] & (j < size)[None, :], other=0)  # fmt: skip
            d = tl.dot(left, right, d, input_precision=PRECISION, out_dtype=TYPE)
        if CELL == "gru":
            d += tl.load(held + at, mask=here, other=0)
    if LAST:
        tl.store(dh + at, d, mask=here)
    else:
        d += tl.load(g + at, mask=here, other=0)
        out, kept = row * (WIDE * size) + j[None, :], gates + row * (4 * size) + j[None, :]
        if CELL == "rnn":
            y = tl.load(state + at, mask=here, other=0)
            if TANH:
                tl.store(dx + out, d * (1 - y * y), mask=here)
            else:
                tl.store(dx + out, d * tl.where(y > 0, 1.0, 0.0), mask=here)
        elif CELL == "gru":
            r, z = tl.load(kept, mask=here, other=0), tl.load(kept + size, mask=here, other=0)
            new, term = tl.load(kept + 2 * size, mask=here, other=0), tl.load(kept + 3 * size, mask=here, other=0)
            dn = d * (1 - z) * (1 - new * new)
            dz = d * (tl.load(before + at, mask=here, other=0) - new) * z * (1 - z)
            dr = dn * term * r * (1 - r)
            tl.store(dx + out, dr, mask=here)
            tl.store(dx + out + size, dz, mask=here)
            tl.store(dx + out + 2 * size, dn, mask=here)
            tl.store(own + out, dr, mask=here)
            tl.store(own + out + size, dz, mask=here)
            tl.store(own + out + 2 * size, dn * r, mask=here)
            tl.store(held + at, d * z, mask=here)
        else:
            a, f = tl.load(kept, mask=here, other=0), tl.load(kept + size, mask=here, other=0)
            new, o = tl.load(kept + 2 * size, mask=here, other=0), tl.load(kept + 3 * size, mask=here, other=0)
            cell = tanh(tl.load(state + at, mask=here, other=0))
            dc = tl.load(held + at, mask=here, other=0) + d * o * (1 - cell * cell)
            tl.store(dx + out, dc * new * a * (1 - a), mask=here)
            tl.store(dx + out + size, dc * tl.load(before + at, mask=here, other=0) * f * (1 - f), mask=here)
            tl.store(dx + out + 2 * size, dc * a * (1 - new * new), mask=here)
            tl.store(dx + out + 3 * size, d * cell * o * (1 - o), mask=here)
            tl.store(held + at, dc * f, mask=here)


def _tile(batch: int, size: int, a: Any) -> tuple[int, dict[str, Any]]:
    """Programs, and the sizes of their tiles."""
    m = 16 if batch <= 16 else 32
    return cdiv(batch, m) * cdiv(size, 32), {
        "M": m, "N": 32, "K": 32, "num_warps": 4, "num_stages": 2, "PRECISION": "tf32x3" if a.itemsize == 4 else "ieee",
    }  # fmt: skip


def _before(states: Any, first: Any, t: int, reverse: bool) -> Any:
    at = t + 1 if reverse else t - 1
    return states[at] if 0 <= at < len(states) else first


def _forward(cell: str, y: Any, cells: Any, gates: Any, x: Any, weight: Any, bias: Any, h0: Any, c0: Any, reverse: bool,
             tanh: bool = True) -> None:  # fmt: skip
    """Fill y, cells and gates, step after step. What a cell does not have is y in its place."""
    (batch, size), steps = h0.shape, len(x)
    programs, tile = _tile(batch, size, x)
    for t in spec.order(steps, reverse):
        launch(
            recurrent_step, (programs,), y[t], cells[t], gates[t], x[t], weight, bias, _before(y[:steps], h0, t, reverse),
            _before(cells, c0, t, reverse), batch, size, CELL=cell, TANH=tanh, **tile,
        )  # fmt: skip


def _backward(cell: str, g: Any, weight: Any, gates: Any, states: Any, first: Any, held: Any, reverse: bool,
              tanh: bool = True) -> tuple[Any, Any, Any]:  # fmt: skip
    """The gradients of the inputs, of the recurrent terms and of the first state. `states` are those that a step starts from
    (`first` before all), and for the formulas of an LSTM and a plain cell its own."""
    xp, (batch, size), steps, wide = gpu.xp(), first.shape, len(gates), spec.GATES[cell]
    dx, dh = xp.empty((steps, batch, wide * size), weight.dtype), xp.empty((batch, size), weight.dtype)
    own = xp.empty_like(dx) if cell == "gru" else dx
    programs, tile = _tile(batch, size, weight)
    behind = None
    for t in [*reversed(spec.order(steps, reverse)), None]:
        is_last, at = t is None, 0 if t is None else t
        launch(
            recurrent_back, (programs,), dx[at], own[at], dh, held, g[at], dx[at] if behind is None else behind, weight,
            gates[at], states[at], _before(states, first, at, reverse), batch, size, CELL=cell, TANH=tanh, WIDE=wide,
            LAST=is_last, FIRST=behind is None, **tile,
        )  # fmt: skip
        behind = own[at]
    return dx, own, dh


def _weights(own: Any, y: Any, h0: Any, reverse: bool) -> tuple[Any, Any]:
    """The gradients of weight and bias: one product over all steps."""
    xp = gpu.xp()
    before = xp.concatenate([y[1:], h0[None]] if reverse else [h0[None], y[:-1]])
    rows = own.reshape(own.shape[0] * own.shape[1], own.shape[2])
    return rows.T @ before.reshape(len(rows), h0.shape[1]), rows.sum(axis=0)


@kernel(spec.lstm, "cuda/triton-steps", rank=40, formats=FORMATS, contiguous=True)
def lstm(x: Any, weight: Any, bias: Any, h0: Any, c0: Any, *, reverse: bool) -> tuple[Any, Any, Any]:
    xp, steps = gpu.xp(), len(x)
    y, c, gates = xp.empty((steps + 1, *h0.shape), x.dtype), xp.empty((steps, *h0.shape), x.dtype), xp.empty_like(x)
    _forward("lstm", y, c, gates, x, weight, bias, h0, c0, reverse)
    y[steps] = c[0 if reverse else -1]
    return y, c, gates


@kernel(spec.lstm_gradient, "cuda/triton-steps", rank=40, formats=FORMATS, contiguous=True, where=spec.one_format)
def lstm_gradient(
    g: Any, weight: Any, h0: Any, c0: Any, y: Any, c: Any, gates: Any, *, reverse: bool
) -> tuple[Any, ...]:
    dc = gpu.copied(g[-1])
    dx, own, dh = _backward("lstm", g, weight, gates, c, c0, dc, reverse)
    return dx, *_weights(own, y[:-1], h0, reverse), dh, dc


@kernel(spec.gru, "cuda/triton-steps", rank=40, formats=FORMATS, contiguous=True)
def gru(x: Any, weight: Any, bias: Any, h0: Any, *, reverse: bool) -> tuple[Any, Any]:
    xp, steps = gpu.xp(), len(x)
    y, gates = xp.empty((steps, *h0.shape), x.dtype), xp.empty((steps, len(h0), 4 * h0.shape[1]), x.dtype)
    _forward("gru", y, y, gates, x, weight, bias, h0, h0, reverse)
    return y, gates


@kernel(spec.gru_gradient, "cuda/triton-steps", rank=40, formats=FORMATS, contiguous=True, where=spec.one_format)
def gru_gradient(g: Any, weight: Any, h0: Any, y: Any, gates: Any, *, reverse: bool) -> tuple[Any, ...]:
    dx, own, dh = _backward("gru", g, weight, gates, y, h0, gpu.xp().empty_like(h0), reverse)
    return dx, *_weights(own, y, h0, reverse), dh


@kernel(spec.rnn, "cuda/triton-steps", rank=40, formats=FORMATS, contiguous=True)
def rnn(x: Any, weight: Any, bias: Any, h0: Any, *, reverse: bool, nonlinearity: str) -> Any:
    y = gpu.xp().empty_like(x)
    _forward("rnn", y, y, y, x, weight, bias, h0, h0, reverse, nonlinearity == "tanh")
    return y


@kernel(spec.rnn_gradient, "cuda/triton-steps", rank=40, formats=FORMATS, contiguous=True, where=spec.one_format)
def rnn_gradient(g: Any, weight: Any, h0: Any, y: Any, *, reverse: bool, nonlinearity: str) -> tuple[Any, ...]:
    dx, own, dh = _backward("rnn", g, weight, y, y, h0, h0, reverse, nonlinearity == "tanh")
    return dx, *_weights(own, y, h0, reverse), dh
