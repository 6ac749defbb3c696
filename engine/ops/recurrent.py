"""Recurrent layers over a sequence: one product for all inputs, then a kernel that runs through the steps."""

from __future__ import annotations

from typing import Any

from ulpgrad.device import elsewhere
from ulpgrad.differentiable import Primitive
from ulpgrad.errors import ShapeError
from ulpgrad.kernels.recurrent import spec
from ulpgrad.ops import elementwise as ew
from ulpgrad.ops.common import as_tensor
from ulpgrad.ops.creation import zeros
from ulpgrad.ops.linalg import linear
from ulpgrad.ops.manipulation import stack
from ulpgrad.tensor import Tensor

__all__ = ["gru", "lstm", "rnn"]

Present = Tensor | None


# The same step by step, for second derivatives.


def _parts(x: Tensor, size: int) -> list[Tensor]:
    return [x[:, at : at + size] for at in range(0, x.shape[1], size)]


def _in_order(steps: dict[int, Tensor]) -> list[Tensor]:
    return [steps[t] for t in sorted(steps)]


def _lstm_composite(x: Tensor, weight: Tensor, bias: Present, h0: Tensor, c0: Tensor, reverse: bool) -> Tensor:
    h, c, states = h0, c0, {}
    for t in spec.order(x.shape[0], reverse):
        i, f, g, o = _parts(x[t] + linear(h, weight, bias), weight.shape[1])
        c = ew.sigmoid(f) * c + ew.sigmoid(i) * ew.tanh(g)
        h = states[t] = ew.sigmoid(o) * ew.tanh(c)
    return stack([*_in_order(states), c])


def _gru_composite(x: Tensor, weight: Tensor, bias: Present, h0: Tensor, reverse: bool) -> Tensor:
    h, states = h0, {}
    for t in spec.order(x.shape[0], reverse):
        in_r, in_z, in_n = _parts(x[t], weight.shape[1])
        own_r, own_z, own_n = _parts(linear(h, weight, bias), weight.shape[1])
        z = ew.sigmoid(in_z + own_z)
        h = states[t] = (1 - z) * ew.tanh(in_n + ew.sigmoid(in_r + own_r) * own_n) + z * h
    return stack(_in_order(states))


def _rnn_composite(x: Tensor, weight: Tensor, bias: Present, h0: Tensor, reverse: bool, nonlinearity: str) -> Tensor:
    h, states, function = h0, {}, ew.tanh if nonlinearity == "tanh" else ew.relu
    for t in spec.order(x.shape[0], reverse):
        h = states[t] = function(x[t] + linear(h, weight, bias))
    return stack(_in_order(states))


def _lstm_joint(
    g: Tensor, weight: Tensor, h0: Tensor, c0: Tensor, y: Tensor, c: Tensor, gates: Tensor, reverse: bool
) -> tuple[Tensor, ...]:
    return _lstm_gradient.every(g, weight, h0, c0, y, c, gates, reverse=reverse)


def _gru_joint(g: Tensor, weight: Tensor, h0: Tensor, y: Tensor, gates: Tensor, reverse: bool) -> tuple[Tensor, ...]:
    return _gru_gradient.every(g, weight, h0, y, gates, reverse=reverse)


def _rnn_joint(
    g: Tensor, weight: Tensor, h0: Tensor, y: Tensor, reverse: bool, nonlinearity: str
) -> tuple[Tensor, ...]:
    return _rnn_gradient.every(g, weight, h0, y, reverse=reverse, nonlinearity=nonlinearity)


_lstm = Primitive(spec.lstm, "x weight bias h0 c0", "y c gates", joint=_lstm_joint, composite=_lstm_composite)
_lstm_gradient = Primitive(spec.lstm_gradient, "g0 weight h0 c0 y c gates", "dx dweight dbias dh0 dc0")
_gru = Primitive(spec.gru, "x weight bias h0", "y gates", joint=_gru_joint, composite=_gru_composite)
_gru_gradient = Primitive(spec.gru_gradient, "g0 weight h0 y gates", "dx dweight dbias dh0")
_rnn = Primitive(spec.rnn, "x weight bias h0", "y", joint=_rnn_joint, composite=_rnn_composite)
_rnn_gradient = Primitive(spec.rnn_gradient, "g0 weight h0 y", "dx dweight dbias dh0")


def _prepared(name: str, x: Any, weight_ih: Any, weight_hh: Any, biases: Any, *states: Any) -> tuple[Any, ...]:
    """The inputs' share of the gates at all steps, weights and bias of the state, and first states (zeros where not given)."""
    bias_ih, bias_hh = (None if b is None else as_tensor(b) for b in biases)
    x, weight_ih, weight_hh = as_tensor(x), as_tensor(weight_ih), as_tensor(weight_hh)
    rows = spec.GATES[name]
    if x.ndim != 3 or not x.shape[0]:
        raise ShapeError(f"{name}: x has shape {x.shape}: expected (steps, batch, inputs), one step or more")
    if weight_hh.ndim != 2 or weight_hh.shape[0] != rows * weight_hh.shape[1]:
        raise ShapeError(f"{name}: weight_hh has shape {weight_hh.shape}: expected ({rows} x size, size)")
    if weight_ih.shape != (len(weight_hh), x.shape[2]):
        raise ShapeError(f"{name}: weight_ih has shape {weight_ih.shape}: expected {(len(weight_hh), x.shape[2])}")
    gates = linear(x, weight_ih, bias_ih)
    state = (x.shape[1], weight_hh.shape[1])
    return (
        gates,
        weight_hh,
        bias_hh,
        *(
            zeros(state, dtype=gates.dtype, device=elsewhere(gates.storage)) if s is None else as_tensor(s)
            for s in states
        ),
    )


def lstm(x: Any, weight_ih: Any, weight_hh: Any, bias_ih: Any = None, bias_hh: Any = None, h0: Any = None, c0: Any = None,
         *, reverse: bool = False) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """One LSTM layer in one direction (Hochreiter and Schmidhuber 1997; forget gates by Gers et al. 2000).

    x (steps, batch, inputs), weight_ih (4 size, inputs), weight_hh (4 size, size), biases (4 size,), h0 and c0 (batch, size)
    or zeros -> y (steps, batch, size), and h and c after the last step, (batch, size). Gates stand in torch's order: input,
    forget, cell, output. `reverse` runs from the last step to the first, where h and c then are. Narrow floats are computed
    in float32 and rounded once. Raises ShapeError where shapes do not fit. See `ulpgrad.nn.LSTM`.
    """
    operands = _prepared("lstm", x, weight_ih, weight_hh, (bias_ih, bias_hh), h0, c0)
    y, steps = _lstm(*operands, reverse=bool(reverse)), operands[0].shape[0]
    return y[:steps], y[0 if reverse else steps - 1], y[steps]


def gru(x: Any, weight_ih: Any, weight_hh: Any, bias_ih: Any = None, bias_hh: Any = None, h0: Any = None, *,
        reverse: bool = False) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One GRU layer in one direction (Cho et al. 2014, with the reset gate after the product, as in torch and cuDNN).

    As `lstm`, with weights of 3 size rows in the order reset, update, new -> y (steps, batch, size), h (batch, size).
    """
    y = _gru(*_prepared("gru", x, weight_ih, weight_hh, (bias_ih, bias_hh), h0), reverse=bool(reverse))
    return y, y[0 if reverse else -1]


def rnn(x: Any, weight_ih: Any, weight_hh: Any, bias_ih: Any = None, bias_hh: Any = None, h0: Any = None, *,
        reverse: bool = False, nonlinearity: str = "tanh") -> tuple[Tensor, Tensor]:  # fmt: skip
    """One plain recurrent layer in one direction (Elman 1990): h = nonlinearity(weight_ih x + weight_hh h + biases).

    As `lstm`, with weights of `size` rows and "tanh" or "relu" -> y (steps, batch, size), h (batch, size).
    """
    operands = _prepared("rnn", x, weight_ih, weight_hh, (bias_ih, bias_hh), h0)
    y = _rnn(*operands, reverse=bool(reverse), nonlinearity=nonlinearity)
    return y, y[0 if reverse else -1]
