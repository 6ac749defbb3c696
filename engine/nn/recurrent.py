"""Recurrent layers, of any depth and in both directions, and their single steps."""

from __future__ import annotations

import math
from typing import Any

from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.nn import init
from ulpgrad.nn.module import Module
from ulpgrad.nn.parameter import Parameter
from ulpgrad.ops import as_tensor, concat, dropout, empty, expand_dims, gru, lstm, permute_dims, rnn, stack
from ulpgrad.tensor import Tensor

KINDS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class _Weights(Module):
    """Parameters of `gates` x `hidden_size` rows, uniform within 1 / sqrt(hidden_size)."""

    gates: int

    def _create(self, suffix: str, inputs: int, size: int, bias: bool, dtype: Any) -> None:
        shapes: list[tuple[int, ...]] = [
            (self.gates * size, inputs),
            (self.gates * size, size),
            *[(self.gates * size,)] * 2,
        ]
        for kind, shape in zip(KINDS, shapes, strict=True):
            wanted = bias or kind.startswith("weight")
            setattr(self, kind + suffix, Parameter(empty(shape, dtype=dtype)) if wanted else None)

    def reset_parameters(self) -> None:
        """Draw new values, from ulpgrad.random's default generator."""
        for parameter in self.parameters():
            bound = 1 / math.sqrt(parameter.shape[0] // self.gates)
            init.uniform_(parameter, -bound, bound)

    def _weights(self, suffix: str) -> list[Parameter | None]:
        return [getattr(self, kind + suffix) for kind in KINDS]

    def _layer(
        self, x: Tensor, weights: list[Parameter | None], states: list[Tensor | None], **how: Any
    ) -> list[Tensor]:
        """One layer in one direction: y, and the last states."""
        raise NotImplementedError


class _LSTMWeights(_Weights):
    gates = 4
    states = 2

    def _layer(
        self, x: Tensor, weights: list[Parameter | None], states: list[Tensor | None], **how: Any
    ) -> list[Tensor]:
        return list(lstm(x, *weights, *states, **how))


class _GRUWeights(_Weights):
    gates = 3
    states = 1

    def _layer(
        self, x: Tensor, weights: list[Parameter | None], states: list[Tensor | None], **how: Any
    ) -> list[Tensor]:
        return list(gru(x, *weights, *states, **how))


class _RNNWeights(_Weights):
    gates = 1
    states = 1
    nonlinearity: str

    def _layer(
        self, x: Tensor, weights: list[Parameter | None], states: list[Tensor | None], **how: Any
    ) -> list[Tensor]:
        return list(rnn(x, *weights, *states, nonlinearity=self.nonlinearity, **how))


def _sizes(name: str, **sizes: int) -> None:
    for what, size in sizes.items():
        if size < 1:
            raise ArgumentError(f"{name}: {what}={size!r}: expected 1 or more")


class _Recurrent(_Weights):
    """Layers and directions over a sequence."""

    states: int

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: Any = None,
    ) -> None:
        name = type(self).__name__
        _sizes(name, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        if not 0 <= dropout <= 1:
            raise ArgumentError(f"{name}: dropout={dropout!r}: expected a probability from 0 to 1")
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout, self.bidirectional = bias, batch_first, dropout, bidirectional
        self._suffixes = [f"_l{i}{end}" for i in range(num_layers) for end in ("", "_reverse")[: 1 + bidirectional]]
        for suffix in self._suffixes:
            inputs = input_size if suffix.startswith("_l0") else hidden_size * (1 + bidirectional)
            self._create(suffix, inputs, hidden_size, bias, dtype)
        self.reset_parameters()

    def _run(self, given: Any, hx: list[Any]) -> tuple[Tensor, list[Tensor]]:
        x, name = as_tensor(given), type(self).__name__
        if x.ndim not in (2, 3) or x.shape[-1] != self.input_size:
            raise ShapeError(f"{name}({self.input_size}, ...): got shape {x.shape}, expected (steps, {self.input_size}) or "
                             f"{'(batch, steps' if self.batch_first else '(steps, batch'}, {self.input_size})")  # fmt: skip
        is_one, parts = x.ndim == 2, len(self._suffixes)
        if is_one:
            x = expand_dims(x, axis=1)
        elif self.batch_first:
            x = permute_dims(x, (1, 0, 2))
        expected = (parts, *([] if is_one else [x.shape[1]]), self.hidden_size)
        firsts: list[list[Any]] = []
        for state in hx:
            tensor = as_tensor(state)
            if tensor.shape != expected:
                raise ShapeError(f"{name}: a first state has shape {tensor.shape}: expected {expected}")
            firsts.append([expand_dims(tensor[i], axis=0) if is_one else tensor[i] for i in range(parts)])
        lasts: list[list[Tensor]] = []
        directions = 1 + self.bidirectional
        for layer in range(self.num_layers):
            if layer and self.dropout:
                x = dropout(x, self.dropout, self.training)
            sides = []
            for part in range(layer * directions, (layer + 1) * directions):
                first = [f[part] for f in firsts] or [None] * self.states
                y, *last = self._layer(x, self._weights(self._suffixes[part]), first, reverse=part % directions == 1)
                sides.append(y)
                lasts.append(last)
            x = sides[0] if directions == 1 else concat(sides, axis=-1)
        ends = [stack(list(states)) for states in zip(*lasts, strict=True)]
        if is_one:
            return x[:, 0], [end[:, 0] for end in ends]
        return permute_dims(x, (1, 0, 2)) if self.batch_first else x, ends

    def extra_repr(self) -> str:
        settings = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        changed = [f"{n}={getattr(self, n)}" for n, usual in settings.items() if getattr(self, n) != usual]
        return ", ".join([str(self.input_size), str(self.hidden_size), *changed])


class LSTM(_LSTMWeights, _Recurrent):
    """LSTM layers over a sequence, with torch's arguments and weights. See `ulpgrad.lstm`.

    x (steps, batch, inputs), with `batch_first` (batch, steps, inputs), or (steps, inputs) for one sequence -> (y, (h, c)): y of
    the last layer in x's layout, both directions side by side; the last states (num_layers x directions, batch, hidden_size).
    `hx` gives the first states, zeros otherwise. `dropout` acts between layers in training. Sequences of a batch have one
    length (packed sequences are not offered), and `proj_size` must be 0. Raises ShapeError and ArgumentError.
    """

    def __init__(self, *args: Any, proj_size: int = 0, **options: Any) -> None:
        if proj_size:
            raise ArgumentError(f"LSTM: proj_size={proj_size}: expected 0; put a Linear after the layer instead")
        super().__init__(*args, **options)

    def forward(self, x: Any, hx: tuple[Any, Any] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, (h, c) = self._run(x, [] if hx is None else list(hx))
        return y, (h, c)


class GRU(_GRUWeights, _Recurrent):
    """GRU layers over a sequence -> (y, h). Arguments and shapes are those of `LSTM`, with one state. See `ulpgrad.gru`."""

    def forward(self, x: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        y, (h,) = self._run(x, [] if hx is None else [hx])
        return y, h


class RNN(_RNNWeights, _Recurrent):
    """Plain recurrent layers over a sequence -> (y, h), with `nonlinearity` "tanh" or "relu". Otherwise as `GRU`. See
    `ulpgrad.rnn`."""

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", **options: Any
    ) -> None:
        self.nonlinearity = _checked(nonlinearity, "RNN")
        super().__init__(input_size, hidden_size, num_layers, **options)

    def forward(self, x: Any, hx: Any = None) -> tuple[Tensor, Tensor]:
        y, (h,) = self._run(x, [] if hx is None else [hx])
        return y, h


def _checked(nonlinearity: str, name: str) -> str:
    if nonlinearity not in ("tanh", "relu"):
        raise ArgumentError(f"{name}: nonlinearity={nonlinearity!r}: expected 'tanh' or 'relu'")
    return nonlinearity


class _Cell(_Weights):
    """One step; one row of a batch may come without its axis."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, dtype: Any = None) -> None:
        _sizes(type(self).__name__, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        self._create("", input_size, hidden_size, bias, dtype)
        self.reset_parameters()

    def _step(self, given: Any, hx: list[Any]) -> list[Tensor]:
        x = as_tensor(given)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ShapeError(f"{type(self).__name__}({self.input_size}, ...): got shape {x.shape}, expected (batch, "
                             f"{self.input_size}) or ({self.input_size},)")  # fmt: skip
        if x.ndim == 1:
            return [
                s[0]
                for s in self._step(expand_dims(x, axis=0), [None if s is None else as_tensor(s)[None] for s in hx])
            ]
        return self._layer(expand_dims(x, axis=0), self._weights(""), hx)[1:]

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class LSTMCell(_LSTMWeights, _Cell):
    """One step of an LSTM: x (batch, inputs) and (h, c), zeros if not given -> the next (h, c), each (batch, hidden_size)."""

    def forward(self, x: Any, hx: tuple[Any, Any] | None = None) -> tuple[Tensor, Tensor]:
        h, c = self._step(x, [None, None] if hx is None else list(hx))
        return h, c


class GRUCell(_GRUWeights, _Cell):
    """One step of a GRU: x (batch, inputs) and h, zeros if not given -> the next h (batch, hidden_size)."""

    def forward(self, x: Any, hx: Any = None) -> Tensor:
        return self._step(x, [hx])[0]


class RNNCell(_RNNWeights, _Cell):
    """One step of a plain recurrent layer: x (batch, inputs) and h, zeros if not given -> the next h (batch, hidden_size)."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", dtype: Any = None
    ) -> None:
        self.nonlinearity = _checked(nonlinearity, "RNNCell")
        super().__init__(input_size, hidden_size, bias, dtype)

    def forward(self, x: Any, hx: Any = None) -> Tensor:
        return self._step(x, [hx])[0]
