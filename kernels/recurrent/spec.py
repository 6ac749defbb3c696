"""One layer in one direction over a sequence: LSTM (Hochreiter and Schmidhuber 1997, with forget gates), GRU (Cho et al. 2014,
reset after the product, as torch and cuDNN have it) and the plain network (Elman 1990), with gradients through time.

The inputs' share of the gates is a product over all steps at once, made before: `x` is what it gave. Weights and gates stand
in torch's order: LSTM input, forget, cell, output; GRU reset, update, new. `reverse` runs from the last step to the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import FLOATS, Array, Format, compute_format, float32, float64
from ulpgrad.kernels.registry import Request
from ulpgrad.kernels.spec import Op, Sample, promoted

Present = Array | None
GATES = {"lstm": 4, "gru": 3, "rnn": 1}
NONLINEARITIES = ("tanh", "relu")

# Of 1 + the largest value of the result: what one step rounds, the next ones carry on.
ULPS: dict[Format, float] = {float32: 24, float64: 24}


def one_format(request: Request) -> str | None:
    """Predicate of rungs that want all operands in one float format."""
    return None if len({f for f in request.formats if f is not None}) == 1 else "mixes float formats"


def order(steps: int, reverse: bool) -> range:
    """The steps of a sequence as they are run."""
    return range(steps - 1, -1, -1) if reverse else range(steps)


# What is right.


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def _terms(h: Array, weight: Array, bias: Present) -> Array:
    product = h @ weight.T
    return product if bias is None else product + bias


def lstm_reference(x: Array, weight: Array, bias: Present, h0: Array, c0: Array, *, reverse: bool) -> tuple[Array, ...]:
    steps, n, size = len(x), x.shape[1], weight.shape[1]
    y, cells, gates = np.zeros((steps + 1, n, size)), np.zeros((steps, n, size)), np.zeros((steps, n, 4 * size))
    h, c = h0, c0
    for t in order(steps, reverse):
        i, f, g, o = np.split(x[t] + _terms(h, weight, bias), 4, axis=1)
        i, f, g, o = _sigmoid(i), _sigmoid(f), np.tanh(g), _sigmoid(o)
        c = f * c + i * g
        h = o * np.tanh(c)
        y[t], cells[t], gates[t] = h, c, np.concatenate([i, f, g, o], axis=1)
    y[steps] = c
    return y, cells, gates


def lstm_gradient_reference(
    g: Array, weight: Array, h0: Array, c0: Array, y: Array, c: Array, gates: Array, *, reverse: bool
) -> tuple[Array, ...]:
    steps = len(gates)
    dx, dh, dc = np.zeros(gates.shape), np.zeros(h0.shape), g[steps]
    for t in reversed(order(steps, reverse)):
        i, f, new, o = np.split(gates[t], 4, axis=1)
        dh, tanh_c = dh + g[t], np.tanh(c[t])
        dc = dc + dh * o * (1 - tanh_c**2)
        before = _before(c, c0, t, reverse)
        parts = dc * new * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - new**2), dh * tanh_c * o * (1 - o)
        dx[t] = np.concatenate(parts, axis=1)
        dh, dc = dx[t] @ weight, dc * f
    return dx, *_weights(dx, y[:steps], h0, reverse), dh, dc


def gru_reference(x: Array, weight: Array, bias: Present, h0: Array, *, reverse: bool) -> tuple[Array, Array]:
    steps, n, size = len(x), x.shape[1], weight.shape[1]
    y, gates = np.zeros((steps, n, size)), np.zeros((steps, n, 4 * size))
    h = h0
    for t in order(steps, reverse):
        in_r, in_z, in_n = np.split(x[t], 3, axis=1)
        own_r, own_z, own_n = np.split(_terms(h, weight, bias), 3, axis=1)
        r, z = _sigmoid(in_r + own_r), _sigmoid(in_z + own_z)
        new = np.tanh(in_n + r * own_n)
        h = (1 - z) * new + z * h
        y[t], gates[t] = h, np.concatenate([r, z, new, own_n], axis=1)
    return y, gates


def gru_gradient_reference(
    g: Array, weight: Array, h0: Array, y: Array, gates: Array, *, reverse: bool
) -> tuple[Array, ...]:
    steps, n, size = y.shape
    dx, own, dh = np.zeros((steps, n, 3 * size)), np.zeros((steps, n, 3 * size)), np.zeros(h0.shape)
    for t in reversed(order(steps, reverse)):
        r, z, new, own_n = np.split(gates[t], 4, axis=1)
        dh = dh + g[t]
        dn = dh * (1 - z) * (1 - new**2)
        dz, dr = dh * (_before(y, h0, t, reverse) - new) * z * (1 - z), dn * own_n * r * (1 - r)
        dx[t], own[t] = np.concatenate([dr, dz, dn], axis=1), np.concatenate([dr, dz, dn * r], axis=1)
        dh = dh * z + own[t] @ weight
    return dx, *_weights(own, y, h0, reverse), dh


def rnn_reference(x: Array, weight: Array, bias: Present, h0: Array, *, reverse: bool, nonlinearity: str) -> Array:
    y, h = np.zeros(x.shape), h0
    for t in order(len(x), reverse):
        h = x[t] + _terms(h, weight, bias)
        h = np.tanh(h) if nonlinearity == "tanh" else np.where(h < 0, 0.0, h)
        y[t] = h
    return y


def rnn_gradient_reference(
    g: Array, weight: Array, h0: Array, y: Array, *, reverse: bool, nonlinearity: str
) -> tuple[Array, ...]:
    dx, dh = np.zeros(y.shape), np.zeros(h0.shape)
    for t in reversed(order(len(y), reverse)):
        slope = 1 - y[t] ** 2 if nonlinearity == "tanh" else np.where(y[t] > 0, 1.0, 0.0)
        dx[t] = (dh + g[t]) * slope
        dh = dx[t] @ weight
    return dx, *_weights(dx, y, h0, reverse), dh


def _before(states: Array, first: Array, t: int, reverse: bool) -> Array:
    """The state that step t started from."""
    at = t + 1 if reverse else t - 1
    return np.asarray(states[at] if 0 <= at < len(states) else first)


def _weights(own: Array, y: Array, h0: Array, reverse: bool) -> tuple[Array, Array]:
    """The gradients of weight and bias, from those of the recurrent terms."""
    before = np.stack([_before(y, h0, t, reverse) for t in range(len(own))])
    return np.einsum("tng,tnh->gh", own, before), own.sum(axis=(0, 1))


# Checks and result formats.


def _check_shapes(name: str, expected: dict[str, tuple[Any, tuple[int, ...]]]) -> None:
    for what, (a, shape) in expected.items():
        if a is not None and tuple(a.shape) != shape:
            raise ShapeError(f"{name}: {what} has shape {tuple(a.shape)}: expected {shape}")


def _check(name: str, x: Any, weight: Any, bias: Any, h0: Any, c0: Any = None, **params: Any) -> None:
    gates = GATES[name]
    if x.ndim != 3 or x.shape[0] < 1:
        raise ShapeError(
            f"{name}: x has shape {tuple(x.shape)}: expected (steps, batch, {gates} x size), one step or more"
        )
    if weight.ndim != 2 or weight.shape[0] != gates * weight.shape[1]:
        raise ShapeError(f"{name}: weight has shape {tuple(weight.shape)}: expected ({gates} x size, size)")
    (steps, n, _), size = x.shape, weight.shape[1]
    state = (n, size)
    _check_shapes(name, {"x": (x, (steps, n, gates * size)), "bias": (bias, (gates * size,)), "h0": (h0, state),
                         "c0": (c0, state)})  # fmt: skip
    _check_nonlinearity(name, params)


def _check_nonlinearity(name: str, params: dict[str, Any]) -> None:
    given = params.get("nonlinearity", "tanh")
    if given not in NONLINEARITIES:
        raise ArgumentError(f"{name}: nonlinearity={given!r}: expected one of {', '.join(NONLINEARITIES)}")


def check_lstm(x: Any, weight: Any, bias: Any, h0: Any, c0: Any, *, reverse: bool) -> None:
    _check("lstm", x, weight, bias, h0, c0)


def check_gru(x: Any, weight: Any, bias: Any, h0: Any, *, reverse: bool) -> None:
    _check("gru", x, weight, bias, h0)


def check_rnn(x: Any, weight: Any, bias: Any, h0: Any, *, reverse: bool, nonlinearity: str) -> None:
    _check("rnn", x, weight, bias, h0, nonlinearity=nonlinearity)


def check_lstm_gradient(g: Any, weight: Any, h0: Any, c0: Any, y: Any, c: Any, gates: Any, *, reverse: bool) -> None:
    _check("lstm", gates, weight, None, h0, c0)
    steps, (n, size) = len(gates), h0.shape
    _check_shapes(
        "lstm_gradient", {"g": (g, (steps + 1, n, size)), "y": (y, (steps + 1, n, size)), "c": (c, (steps, n, size))}
    )


def check_gru_gradient(g: Any, weight: Any, h0: Any, y: Any, gates: Any, *, reverse: bool) -> None:
    (steps, n), size = y.shape[:2], y.shape[-1]
    _check_shapes("gru_gradient", {"g": (g, (steps, n, size)), "weight": (weight, (3 * size, size)), "h0": (h0, (n, size)),
                                   "y": (y, (steps, n, size)), "gates": (gates, (steps, n, 4 * size))})  # fmt: skip


def check_rnn_gradient(g: Any, weight: Any, h0: Any, y: Any, *, reverse: bool, nonlinearity: str) -> None:
    _check("rnn", y, weight, None, h0, nonlinearity=nonlinearity)
    _check_shapes("rnn_gradient", {"g": (g, tuple(y.shape))})


def _with_saved(count: int) -> Any:
    """The result, and what is kept for the gradient in the format that kernels compute in."""

    def result(*formats: Format | None, **_: Any) -> tuple[Format, ...]:
        form = promoted(*formats)
        return (form, *[compute_format(form)] * count)

    return result


def _gradients(count: int) -> Any:
    def result(g: Format, weight: Format, *_: Format, **__: Any) -> tuple[Format, ...]:
        return (promoted(g, weight),) * count

    return result


# Samples: (steps, batch, size), sizes around those of vectors and tiles.

SIZES = ((1, 1, 1), (3, 2, 5), (5, 7, 16), (2, 13, 33), (4, 1, 40), (3, 29, 8), (1, 3, 20), (2, 0, 4), (6, 3, 70))


def _given(cell: str, size: tuple[int, int, int], index: int) -> tuple[Array, Array, Present, Array]:
    steps, n, h = size
    rng = np.random.default_rng(index)
    x, weight = rng.standard_normal((steps, n, GATES[cell] * h)), rng.standard_normal((GATES[cell] * h, h)) / h**0.5
    bias = None if index % 3 == 1 else rng.standard_normal(GATES[cell] * h)
    return x, weight, bias, rng.standard_normal((n, h))


def _parameters(cell: str, index: int) -> dict[str, Any]:
    params: dict[str, Any] = {"reverse": bool(index % 2)}
    return {**params, "nonlinearity": NONLINEARITIES[index // 2 % 2]} if cell == "rnn" else params


def _samples(cell: str) -> Any:
    def samples() -> Iterator[Sample]:
        for i, size in enumerate(SIZES):
            arrays = _given(cell, size, i)
            yield Sample((*arrays, arrays[3] - 0.5) if cell == "lstm" else arrays, _parameters(cell, i), f"{size}")
        wide, weight, bias, h0 = _given(cell, (2, 3, 16), 0)
        wide, wide[0, 0, 0], wide[0, 1, 1] = wide * 40, np.nan, np.inf
        arrays = (wide, weight, bias, h0)
        yield Sample((*arrays, h0) if cell == "lstm" else arrays, _parameters(cell, 0), "wide range, inf and nan")

    return samples


def _gradient_samples(cell: str, forward: Any) -> Any:
    def samples() -> Iterator[Sample]:
        for i, size in enumerate(SIZES):
            arrays, params = _given(cell, size, i), _parameters(cell, i)
            first = (arrays[3], arrays[3] - 0.5) if cell == "lstm" else (arrays[3],)
            made = forward(*arrays[:3], *first, **params)
            saved = made if isinstance(made, tuple) else (made,)
            g = np.random.default_rng(i + 100).standard_normal(saved[0].shape)
            yield Sample((g, arrays[1], *first, *saved), params, f"{size}")

    return samples


def _magnitude(reference: Any) -> Any:
    """1 + the largest finite value of each result."""

    def size(*arrays: Any, **params: Any) -> Any:
        made = reference(*arrays, **params)
        sizes = tuple(np.full(a.shape, 1 + np.nan_to_num(np.abs(a), posinf=0).max(initial=0.0))
                      for a in (made if isinstance(made, tuple) else (made,)))  # fmt: skip
        return sizes if isinstance(made, tuple) else sizes[0]

    return size


def _op(cell: str, signature: str, doc: str, reference: Any, check: Any, result: Any) -> Op:
    return Op(
        cell,
        signature,
        doc=doc,
        reference=reference,
        check=check,
        result=result,
        formats=FLOATS,
        flops=lambda x, weight, *_, **__: 2.0 * x.shape[0] * x.shape[1] * weight.size,
        samples=_samples(cell),
        ulps=ULPS,
        magnitude=_magnitude(reference),
    )


def _gradient_op(cell: str, signature: str, forward: Any, reference: Any, check: Any, results: int) -> Op:
    return Op(
        f"{cell}_gradient",
        signature,
        doc=f"Gradients of {cell}, through time. The bias's is there even where the bias is not.",
        reference=reference,
        check=check,
        result=_gradients(results),
        formats=FLOATS,
        promote=False,
        flops=lambda g, weight, h0, *saved, **__: 4.0 * saved[-1].shape[0] * h0.shape[0] * weight.size,
        samples=_gradient_samples(cell, forward),
        ulps=ULPS,
        magnitude=_magnitude(reference),
    )


lstm = _op(
    "lstm",
    "(x: [t, n, 4h], weight: [4h, h], bias: [4h]?, h0: [n, h], c0: [n, h], *, reverse) -> (y: [t + 1, n, h], c: [t, n, h],"
    " gates: [t, n, 4h])",
    "i, f, g, o = x + h weight.T + bias; c = sigmoid(f) c + sigmoid(i) tanh(g); h = sigmoid(o) tanh(c). y holds each step's h,"
    " and after them the last c.",
    lstm_reference,
    check_lstm,
    _with_saved(2),
)
lstm_gradient = _gradient_op(
    "lstm",
    "(g: [t + 1, n, h], weight: [4h, h], h0: [n, h], c0: [n, h], y: [t + 1, n, h], c: [t, n, h], gates: [t, n, 4h], *, reverse)"
    " -> (dx: [t, n, 4h], dweight: [4h, h], dbias: [4h], dh0: [n, h], dc0: [n, h])",
    lstm_reference,
    lstm_gradient_reference,
    check_lstm_gradient,
    5,
)
gru = _op(
    "gru",
    "(x: [t, n, 3h], weight: [3h, h], bias: [3h]?, h0: [n, h], *, reverse) -> (y: [t, n, h], gates: [t, n, 4h])",
    "With x = (xr, xz, xn) and (hr, hz, hn) = h weight.T + bias: r = sigmoid(xr + hr), z = sigmoid(xz + hz),"
    " n = tanh(xn + r hn), h = (1 - z) n + z h. gates: r, z, n, hn.",
    gru_reference,
    check_gru,
    _with_saved(1),
)
gru_gradient = _gradient_op(
    "gru",
    "(g: [t, n, h], weight: [3h, h], h0: [n, h], y: [t, n, h], gates: [t, n, 4h], *, reverse)"
    " -> (dx: [t, n, 3h], dweight: [3h, h], dbias: [3h], dh0: [n, h])",
    gru_reference,
    gru_gradient_reference,
    check_gru_gradient,
    4,
)
rnn = _op(
    "rnn",
    "(x: [t, n, h], weight: [h, h], bias: [h]?, h0: [n, h], *, reverse, nonlinearity) -> y: [t, n, h]",
    "h = nonlinearity(x + h weight.T + bias), tanh or relu, at each step.",
    rnn_reference,
    check_rnn,
    promoted,
)
rnn_gradient = _gradient_op(
    "rnn",
    "(g: [t, n, h], weight: [h, h], h0: [n, h], y: [t, n, h], *, reverse, nonlinearity)"
    " -> (dx: [t, n, h], dweight: [h, h], dbias: [h], dh0: [n, h])",
    rnn_reference,
    rnn_gradient_reference,
    check_rnn_gradient,
    4,
)
