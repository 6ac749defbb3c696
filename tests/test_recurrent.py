"""Recurrent layers: functions against NumPy written out by hand, gradients, threads; modules against their functions, and
against torch where it is installed (nothing else here needs it)."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch, nn
from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.formats import as_format
from ulpgrad.kernels import registry
from ulpgrad.kernels.recurrent import spec
from ulpgrad.testing import gradcheck

RNG = np.random.default_rng(3)
CELLS: dict[str, Callable[..., Any]] = {"lstm": ug.lstm, "gru": ug.gru, "rnn": ug.rnn}


def tensor(*shape: int, scale: float = 1.0) -> ug.Tensor:
    return ug.asarray(RNG.standard_normal(shape) * scale)


def operands(cell: str, steps: int, n: int, inputs: int, size: int, grad: bool = False) -> list[ug.Tensor]:
    rows, states = spec.GATES[cell] * size, 2 if cell == "lstm" else 1
    weights = [tensor(rows, inputs), tensor(rows, size), tensor(rows), tensor(rows)]
    given = [tensor(steps, n, inputs), *weights, *(tensor(n, size) for _ in range(states))]
    return [t.requires_grad_(grad) for t in given]


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def by_hand(cell: str, given: list[ug.Tensor], reverse: bool) -> tuple[Any, ...]:
    """The published formulas, unit by unit."""
    x, wi, wh, bi, bh, h, *rest = (t.numpy().copy() for t in given)
    c, size, y = rest[0] if rest else None, wh.shape[1], np.zeros((*x.shape[:2], wh.shape[1]))
    for t in range(len(x))[:: -1 if reverse else 1]:
        for n in range(x.shape[1]):
            old = h[n].copy()
            for j in range(size):
                inner = [wi[k * size + j] @ x[t, n] + bi[k * size + j] for k in range(spec.GATES[cell])]
                outer = [wh[k * size + j] @ old + bh[k * size + j] for k in range(spec.GATES[cell])]
                if c is not None:
                    i, f, g, o = (a + b for a, b in zip(inner, outer, strict=True))
                    c[n, j] = sigmoid(f) * c[n, j] + sigmoid(i) * np.tanh(g)
                    h[n, j] = sigmoid(o) * np.tanh(c[n, j])
                elif cell == "gru":
                    r, z = sigmoid(inner[0] + outer[0]), sigmoid(inner[1] + outer[1])
                    h[n, j] = (1 - z) * np.tanh(inner[2] + r * outer[2]) + z * old[j]
                else:
                    h[n, j] = np.tanh(inner[0] + outer[0])
            y[t, n] = h[n]
    return (y, h) if c is None else (y, h, c)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_functions_are_the_published_formulas(cell: str, reverse: bool) -> None:
    given = operands(cell, 4, 3, 5, 6)
    for got, wanted in zip(CELLS[cell](*given, reverse=reverse), by_hand(cell, given, reverse), strict=True):
        np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cell", CELLS)
def test_first_states_are_zeros_and_biases_may_be_missing(cell: str) -> None:
    x, wi, wh, *_ = operands(cell, 3, 2, 4, 5)
    rows, states = wh.shape[0], [ug.zeros((2, 5), dtype=ug.float64)] * (2 if cell == "lstm" else 1)
    zeros = [ug.zeros(rows, dtype=ug.float64)] * 2
    for got, wanted in zip(CELLS[cell](x, wi, wh), CELLS[cell](x, wi, wh, *zeros, *states), strict=True):
        np.testing.assert_array_equal(got.numpy(), wanted.numpy())


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_all_operands_and_results(cell: str, reverse: bool, steps: int) -> None:
    gradcheck(lambda *a: CELLS[cell](*a, reverse=reverse), operands(cell, steps, 2, 2, 3, grad=True))


@pytest.mark.parametrize("cell", CELLS)
def test_second_derivatives(cell: str) -> None:
    gradcheck(lambda *a: CELLS[cell](*a)[0], operands(cell, 2, 1, 2, 2, grad=True), order=2)


def test_gradients_of_relu() -> None:
    gradcheck(lambda *a: ug.rnn(*a, nonlinearity="relu"), operands("rnn", 3, 2, 2, 3, grad=True), order=2)


@pytest.mark.parametrize("form", [ug.bfloat16, ug.float16])
@pytest.mark.parametrize("cell", CELLS)
def test_narrow_floats_are_rounded_once(cell: str, form: ug.Format) -> None:
    """Through all steps in float32: the states are not rounded on the way."""
    narrow = [t.to(form) for t in operands(cell, 5, 2, 3, 4)]
    wide = [t.to(ug.float32) for t in narrow]
    got = CELLS[cell](*(t.requires_grad_() for t in narrow))
    assert all(t.dtype is form for t in got)
    gates = ug.linear(narrow[0], narrow[1], narrow[3]).detach()  # the inputs' product is an op of its own
    eye = ug.eye(gates.shape[2], dtype=ug.float32)
    wanted = CELLS[cell](gates.to(ug.float32), eye, wide[2], None, *wide[4:])
    np.testing.assert_array_equal(got[0].detach().storage, wanted[0].to(form).storage)
    gradient = ug.grad(got[0], narrow[2], ug.ones_like(got[0]))
    assert gradient.dtype is form
    assert gradient.shape == narrow[2].shape


# Sizes where threads share out batch rows (64), and where they share out units (2).
@pytest.mark.parametrize("n", [2, 64])
@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
def test_same_bits_for_any_number_of_threads(name: str, n: int) -> None:
    before, size = ug.get_num_threads(), 300
    arrays = [np.asarray(a.to(ug.float32).storage) for a in operands(name, 3, n, size * spec.GATES[name], size)]
    x, _, weight, _, bias, *states = arrays
    params: dict[str, Any] = {"reverse": False, **({"nonlinearity": "tanh"} if name == "rnn" else {})}
    results = []
    try:
        for threads in (1, 2, 3):
            ug.set_num_threads(threads)
            made, _ = dispatch.call(registry.find(name), (as_format("float32"),) * (3 + len(states)),
                                    (x, weight / 20, bias, *states), params)  # fmt: skip
            saved = made if isinstance(made, tuple) else (made,)
            given = (saved[0] * 0.5, weight / 20, *states, *saved)
            back, _ = dispatch.call(
                registry.find(f"{name}_gradient"), (as_format("float32"),) * len(given), given, params
            )
            results.append([a.tobytes() for a in (*saved, *back)])
    finally:
        ug.set_num_threads(before)
    assert results[0] == results[1] == results[2]


def test_a_long_sequence_keeps_its_digits() -> None:
    """Against float64, over 200 steps."""
    wide = [
        ug.asarray(t.numpy() * s)
        for t, s in zip(operands("lstm", 200, 4, 8, 32), (1, 0.3, 0.15, 0.1, 0.1, 1, 1), strict=True)
    ]
    y, h, c = ug.lstm(*(t.to(ug.float32) for t in wide))
    for got, wanted in zip((y, h, c), ug.lstm(*wide), strict=True):
        np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-4, atol=2e-6)


# Modules

LAYERS = ("LSTM", "GRU", "RNN")
FUNCTIONS = {"LSTM": ug.lstm, "GRU": ug.gru, "RNN": ug.rnn}


def states_of(result: Any) -> tuple[ug.Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_and_directions_are_calls_of_the_function(kind: str) -> None:
    layer, x = getattr(nn, kind)(3, 4, num_layers=2, bidirectional=True, dtype=ug.float64), tensor(5, 2, 3)
    count = 2 if kind == "LSTM" else 1
    hx = [tensor(4, 2, 4) for _ in range(count)]
    y, last = layer(x, tuple(hx) if kind == "LSTM" else hx[0])
    below, ends = x, []
    for i in range(2):
        sides = []
        for side, end in enumerate(("", "_reverse")):
            weights = [getattr(layer, f"{k}_l{i}{end}") for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
            out, *states = FUNCTIONS[kind](below, *weights, *(s[2 * i + side] for s in hx), reverse=bool(side))
            sides.append(out)
            ends.append(states)
        below = ug.concat(sides, axis=-1)
    np.testing.assert_array_equal(y.detach().numpy(), below.detach().numpy())
    for got, wanted in zip(states_of(last), zip(*ends, strict=True), strict=True):
        np.testing.assert_array_equal(got.detach().numpy(), ug.stack(list(wanted)).detach().numpy())


@pytest.mark.parametrize("kind", LAYERS)
def test_layouts_of_the_batch(kind: str) -> None:
    ug.manual_seed(1)
    layer = getattr(nn, kind)(3, 4, batch_first=True, dtype=ug.float64)
    x = tensor(2, 5, 3)
    y, last = layer(x)
    alone, end = layer(x[1])
    assert y.shape == (2, 5, 4)
    assert alone.shape == (5, 4)
    np.testing.assert_allclose(alone.detach().numpy(), y[1].detach().numpy(), rtol=1e-12)
    for one, all_of in zip(states_of(end), states_of(last), strict=True):
        np.testing.assert_allclose(one.detach().numpy(), all_of[:, 1].detach().numpy(), rtol=1e-12)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_cell_is_one_step(kind: str) -> None:
    cell, x = getattr(nn, f"{kind}Cell")(3, 4, dtype=ug.float64), tensor(2, 3)
    hx = [tensor(2, 4) for _ in range(2 if kind == "LSTM" else 1)]
    weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
    got = states_of(cell(x, tuple(hx) if kind == "LSTM" else hx[0]))
    for one, wanted in zip(got, FUNCTIONS[kind](x[None], *weights, *hx)[1:], strict=True):
        np.testing.assert_array_equal(one.detach().numpy(), wanted.detach().numpy())
    first = states_of(cell(x[0], tuple(h[0] for h in hx) if kind == "LSTM" else hx[0][0]))
    for one, both in zip(first, got, strict=True):
        np.testing.assert_allclose(one.detach().numpy(), both[0].detach().numpy(), rtol=1e-12)
    assert states_of(cell(x[0]))[0].shape == (4,)


def test_dropout_between_layers_in_training_only() -> None:
    layer, x = nn.GRU(3, 4, num_layers=2, dropout=0.5), tensor(6, 2, 3).to(ug.float32)
    trained, again = layer(x)[0].detach().numpy(), layer(x)[0].detach().numpy()
    assert (trained != again).any()
    layer.eval()
    np.testing.assert_array_equal(layer(x)[0].detach().numpy(), layer(x)[0].detach().numpy())


def test_names_and_starts_are_torchs() -> None:
    layer = nn.LSTM(3, 16, num_layers=2, bidirectional=True)
    names = [
        f"{k}_l{i}{s}"
        for i in (0, 1)
        for s in ("", "_reverse")
        for k in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    ]
    assert list(layer.state_dict()) == names
    assert layer.weight_ih_l1.shape == (64, 32)
    assert all(np.abs(p.detach().numpy()).max() <= 0.25 for p in layer.parameters())
    assert list(nn.RNN(2, 3, bias=False).state_dict()) == ["weight_ih_l0", "weight_hh_l0"]
    assert repr(layer) == "LSTM(3, 16, num_layers=2, bidirectional=True)"
    assert repr(nn.GRUCell(2, 3, bias=False)) == "GRUCell(2, 3, bias=False)"


X = ug.ones((4, 2, 3))
WEIGHTS = (ug.ones((8, 3)), ug.ones((8, 2)))
BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: ug.lstm(X[0], *WEIGHTS), ShapeError, r"lstm: x has shape \(2, 3\)"),
    (lambda: ug.lstm(ug.ones((0, 2, 3)), *WEIGHTS), ShapeError, "one step or more"),
    (lambda: ug.lstm(X, WEIGHTS[0], ug.ones((6, 2))), ShapeError, r"weight_hh.*expected \(4 x size, size\)"),
    (lambda: ug.lstm(X, ug.ones((8, 4)), WEIGHTS[1]), ShapeError, r"weight_ih.*expected \(8, 3\)"),
    (lambda: ug.lstm(X, *WEIGHTS, None, ug.ones(2)), ShapeError, "bias"),
    (lambda: ug.lstm(X, *WEIGHTS, h0=ug.ones((1, 2))), ShapeError, "h0"),
    (lambda: ug.lstm(X, *WEIGHTS, c0=ug.ones((2, 3))), ShapeError, "c0"),
    (lambda: ug.gru(X, *WEIGHTS), ShapeError, "gru: weight_hh"),
    (lambda: ug.rnn(X, ug.ones((2, 3)), ug.ones((2, 2)), nonlinearity="cos"), ArgumentError, "tanh, relu"),
    (
        lambda: ug.rnn(ug.ones((1, 1, 1), dtype=int), ug.ones((1, 1), dtype=int), ug.ones((1, 1), dtype=int)),
        FormatError,
        "int64",
    ),
    (lambda: nn.LSTM(3, 4, proj_size=2), ArgumentError, "put a Linear"),
    (lambda: nn.LSTM(3, 0), ArgumentError, "hidden_size"),
    (lambda: nn.GRU(3, 4, num_layers=0), ArgumentError, "num_layers"),
    (lambda: nn.GRU(3, 4, dropout=2.0), ArgumentError, "probability"),
    (lambda: nn.RNN(3, 4, nonlinearity="cos"), ArgumentError, "'tanh' or 'relu'"),
    (lambda: nn.GRU(3, 4)(ug.ones((5, 2, 4))), ShapeError, r"GRU\(3, ...\)"),
    (lambda: nn.GRU(3, 4)(X, ug.ones((1, 3, 4))), ShapeError, r"first state.*expected \(1, 2, 4\)"),
    (lambda: nn.GRUCell(3, 4)(ug.ones((2, 2))), ShapeError, "GRUCell"),
]


@pytest.mark.parametrize("index", range(len(BAD)))
def test_errors_teach(index: int) -> None:
    call, kind, text = BAD[index]
    with pytest.raises(kind, match=text):
        call()


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is a peer, installed by hand")
@pytest.mark.parametrize("kind", LAYERS)
def test_results_and_gradients_as_torchs(kind: str) -> None:
    torch: Any = importlib.import_module("torch")
    theirs = getattr(torch.nn, kind)(3, 20, 2, bidirectional=True, batch_first=True)
    ours = getattr(nn, kind)(3, 20, 2, bidirectional=True, batch_first=True)
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    x = RNG.standard_normal((7, 5, 3)).astype(np.float32)
    own, given = ug.asarray(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    (y, last), (expected, end) = ours(own), theirs(given)
    ((y * y).sum() + states_of(last)[-1].sum()).backward()
    ((expected * expected).sum() + states_of(end)[-1].sum()).backward()
    np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(own.grad.numpy(), given.grad.numpy(), rtol=1e-3, atol=1e-5)
    for (_, p), (_, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-3, atol=1e-4)
