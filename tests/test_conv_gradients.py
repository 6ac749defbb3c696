"""`nn.grad` and transposed convolution: floats against what backward gives, fixed point against Python's integers."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch, fixed, nn
from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.fixed import Accumulator
from ulpgrad.formats import Fixed, Q
from ulpgrad.kernels.conv.geometry import output_size
from ulpgrad.testing import gradcheck

sys.path.insert(0, str(Path(__file__).parent))
from test_fixed_sums import drawn, exact, same

FORWARD = {1: ug.conv1d, 2: ug.conv2d, 3: ug.conv3d}
TO_INPUT = {1: nn.grad.conv1d_input, 2: nn.grad.conv2d_input, 3: nn.grad.conv3d_input}
TO_WEIGHT = {1: nn.grad.conv1d_weight, 2: nn.grad.conv2d_weight, 3: nn.grad.conv3d_weight}
TRANSPOSED = {1: fixed.conv_transpose1d, 2: fixed.conv_transpose2d, 3: fixed.conv_transpose3d}
#     x                 weight            stride     padding    dilation   groups
GEOMETRIES = [
    ((2, 3, 9), (4, 3, 3), (2,), (1,), (2,), 1),
    ((1, 4, 7), (6, 2, 2), (1,), (2,), (1,), 2),
    ((2, 3, 5, 6), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((1, 4, 6, 7), (6, 2, 3, 2), (2, 3), (1, 2), (1, 2), 2),
    ((1, 3, 4, 4), (3, 1, 3, 3), (1, 2), (1, 1), (1, 1), 3),
    ((2, 2, 5, 4, 3), (3, 2, 2, 3, 1), (2, 1, 1), (1, 1, 0), (2, 1, 1), 1),
    ((1, 4, 3, 3, 4), (2, 2, 2, 2, 3), (1, 2, 1), (0, 1, 2), (1, 1, 1), 2),
]
ids = [f"{len(g[0]) - 2}d, stride {g[2]}" for g in GEOMETRIES]


def settings(geometry: Any) -> dict[str, Any]:
    return dict(zip(("stride", "padding", "dilation", "groups"), geometry[2:], strict=True))


def result(geometry: Any) -> tuple[int, ...]:
    x, weight, *rest = geometry
    return (x[0], weight[0], *output_size(x[2:], weight[2:], *rest[:3]))


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=ids)
def test_floats_are_what_backward_gives(geometry: Any) -> None:
    rng, axes, how = np.random.default_rng(0), len(geometry[2]), settings(geometry)
    x, w, g = (ug.asarray(rng.standard_normal(s), requires_grad=True) for s in (*geometry[:2], result(geometry)))
    y = FORWARD[axes](x, w, **how)
    of_x, of_w = ug.grad(y, [x, w], g.detach())
    to_input = functools.partial(TO_INPUT[axes], x.shape, **how)

    def to_weight(g: ug.Tensor, x: ug.Tensor) -> ug.Tensor:
        return TO_WEIGHT[axes](x, w.shape, g, **how)

    np.testing.assert_array_equal(to_input(w, g).detach().numpy(), of_x.numpy())
    np.testing.assert_array_equal(to_weight(g, x).detach().numpy(), of_w.numpy())
    gradcheck(to_input, [w, g])
    gradcheck(to_weight, [g, x])


def gradients(x: Any, w: Any, g: Any, geometry: Any) -> tuple[Any, Any]:
    """Both, window by window, in any arithmetic."""
    (stride, padding, dilation, groups), nothing = geometry[2:], g.flat[0] * 0
    of_x, of_w = (np.full(a.shape, nothing, object) for a in (x, w))
    per = len(w) // groups
    for n, o in np.ndindex(g.shape[:2]):
        for c, *tap in np.ndindex(w.shape[1:]):
            channel = o // per * w.shape[1] + c
            for position in np.ndindex(g.shape[2:]):
                at = [p * s - e + t * d for p, s, e, t, d in zip(position, stride, padding, tap, dilation, strict=True)]
                if all(0 <= a < size for a, size in zip(at, x.shape[2:], strict=True)):
                    of_x[(n, channel, *at)] += g[(n, o, *position)] * w[(o, c, *tap)]
                    of_w[(o, c, *tap)] += g[(n, o, *position)] * x[(n, channel, *at)]
    return of_x, of_w


RULES: list[tuple[Fixed, Fixed, dict[str, Any]]] = [
    (Q(3, 4), Q(1, 6), {"result": Q(8, 7)}),
    (Q(7, 8), Q(3, 12), {"result": Q(7, 8), "rounding": "to_odd", "overflow": "wrap"}),
    (Q(8, 0, False), Q(0, 7), {"result": Q(11, 4), "rounding": "down"}),
    (Q(15, 16), Q(7, 16), {"result": Q(20, 11)}),  # words that the integer kernels do not read
    (Q(3, 4), Q(20, 30), {"result": Q(30, 30), "overflow": "wrap"}),  # sums beyond 64 bits
]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=ids)
def test_fixed_point_is_exact_and_rounded_once(geometry: Any) -> None:
    axes, how = len(geometry[2]), settings(geometry)
    for seed, (a, b, rule) in enumerate(RULES):
        x, w, g = drawn(b, geometry[0], seed), drawn(b, geometry[1], seed + 1), drawn(a, result(geometry), seed + 2)
        of_x, of_w = gradients(exact(x), exact(w), exact(g), geometry)
        with fixed.arithmetic(**rule):
            if axes < 3 or seed < 3:
                same(TO_INPUT[axes](x.shape, w, g, **how), of_x, rule)
                same(TO_WEIGHT[axes](x, w.shape, g, **how), of_w, rule)
        bias = drawn(Q(2, 9), (of_x.shape[1],), seed + 3)
        back = [
            size - ((count - 1) * s - 2 * p + d * (k - 1) + 1)
            for size, count, s, p, d, k in zip(x.shape[2:], g.shape[2:], *geometry[2:5], w.shape[2:], strict=True)
        ]
        given: dict[str, Any] = {**how, "output_padding": tuple(back)}
        same(TRANSPOSED[axes](g, w, bias, **given, **rule), of_x + exact(bias).reshape(-1, *[1] * axes), rule)
        same(TRANSPOSED[axes](g, w, **given, **rule), of_x, rule)


def test_full_precision_has_as_many_bits_as_it_takes() -> None:
    g, w, x = drawn(Q(3, 4), (1, 6, 4, 4), 0), drawn(Q(1, 6), (6, 2, 3, 3), 1), drawn(Q(1, 6), (1, 2, 8, 8), 2)
    how = {"stride": 2, "padding": 1}
    with fixed.arithmetic(result="full"):
        of_x, of_w = nn.grad.conv2d_input(x.shape, w, g, **how), nn.grad.conv2d_weight(x, w.shape, g, **how)
        biased = ug.conv_transpose2d(g, w, drawn(Q(9, 3), (2,), 3), 2, 1, 1)
    assert of_x.dtype is Q(3 + 1 + 1 + 5, 10)  # 6 outputs, two of three taps along each axis: 24 products
    assert of_w.dtype is Q(3 + 1 + 1 + 4, 10)  # 16 positions
    assert biased.dtype is Q(11, 10)
    same(of_x, gradients(exact(x), exact(w), exact(g), ((), (), (2, 2), (1, 1), (1, 1), 1))[0], {})


def test_words_of_16_bits_run_on_integer_kernels() -> None:
    g, w, x = drawn(Q(7, 8), (1, 6, 4, 4), 0), drawn(Q(1, 6), (6, 2, 3, 3), 1), drawn(Q(1, 6), (1, 2, 8, 8), 2)
    how: dict[str, Any] = {"stride": 2, "padding": 1}
    calls: dict[str, Callable[[], Any]] = {
        "integer_conv2d_input_gradient": lambda: nn.grad.conv2d_input(x.shape, w, g, **how),
        "integer_conv2d_weight_gradient": lambda: nn.grad.conv2d_weight(x, w.shape, g, **how),
    }
    with fixed.arithmetic(result=Q(7, 8)):
        for name, call in calls.items():
            assert [op.name for op, *_ in dispatch.calls_of(call)] == [name, "fixed_rescale"]
        assert [op.name for op, *_ in dispatch.calls_of(lambda: ug.conv_transpose1d(g[:, :, 0], w[:, :, 0]))] == [
            "integer_conv2d_input_gradient", "fixed_rescale",
        ]  # fmt: skip


def test_accumulator() -> None:
    """Chosen sums are those of the op, in its order."""
    g, w = drawn(Q(7, 0), (1, 3, 2, 2), 0), drawn(Q(7, 0), (3, 2, 2, 2), 1)
    chosen = Accumulator(12, 3, "saturate", "to_odd", 1)
    y = fixed.conv_transpose2d(g, w, result=Q(14, -3), accumulator=chosen)
    got = y.storage[0, 1, 1, 1]
    total = 0
    for o in range(3):
        for i in range(2):
            for j in range(2):
                term = int(g.storage[0, o, 1 - i, 1 - j]) * int(w.storage[o, 1, i, j])
                total = chosen.limited(total + chosen.limited(chosen.rounded(term)))
    assert got == total


def test_gradients_of_transposed_convolution_are_those_of_the_real_function() -> None:
    rng = np.random.default_rng(0)
    for axes, size in ((1, (5,)), (2, (3, 4)), (3, (2, 3, 2))):
        function = {1: ug.conv_transpose1d, 2: ug.conv_transpose2d, 3: ug.conv_transpose3d}[axes]
        shapes = (2, 4, *size), (4, 3, *[3, 2, 2][:axes]), (6,)
        leaves = [ug.asarray(rng.uniform(-1, 1, s)).to("q5.10").requires_grad_() for s in shapes]
        reals = [t.detach().to("float32").requires_grad_() for t in leaves]
        outs = [function(*given, stride=2, padding=1, output_padding=1, groups=2) for given in (leaves, reals)]
        np.testing.assert_allclose(outs[0].detach().numpy(), outs[1].detach().numpy(), atol=2**-10)
        g = ug.asarray(rng.uniform(-1, 1, outs[0].shape)).to("float32")
        for a, b in zip(ug.grad(outs[0], leaves, g), ug.grad(outs[1], reals, g), strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


G, W, X = np.zeros((1, 3, 4, 4)), np.zeros((3, 2, 3, 3)), np.zeros((1, 2, 4, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.grad.conv2d_input((1, 4, 4), W, G), ShapeError, r"conv2d_input: input_size=\(1, 4, 4\): expected 4"),
        (lambda: nn.grad.conv2d_input((2, 2, 4, 4), W, G, 1, 1), ShapeError, r"\(2, 2, 4, 4\): expected \(1, 2, 4, 4\)"),
        (lambda: nn.grad.conv2d_input((1, 2, 5, 4), W, G, 1, 1), ShapeError, "gives"),
        (lambda: nn.grad.conv2d_input((1, 2, 4, 4), W[0], G, 1, 1), ShapeError, "conv2d_input: weight="),
        (lambda: nn.grad.conv2d_weight(X, (3, 1, 3, 3), G, 1, 1), ShapeError, r"expected \(3, 2, 3, 3\)"),
        (lambda: nn.grad.conv2d_weight(X[0], W.shape, G, 1, 1), ShapeError, "conv2d_weight: input="),
        (lambda: nn.grad.conv2d_input(4, W, G), ShapeError, "input_size=4: expected 4 sizes"),
        (lambda: nn.grad.conv2d_input((1, 2, 4, 4), W, G, groups=0), ArgumentError, "conv2d_input: groups=0"),
        (lambda: nn.grad.conv2d_weight(X, W.shape, G, groups=1.5), ArgumentError, "conv2d_weight: groups=1.5"),
        (lambda: nn.grad.conv1d_weight(X[:, :, 0], (3, 2, 3), G[:, :, 0], 0, 1), ArgumentError, "conv1d_weight: stride"),
        (lambda: ug.conv_transpose2d(ug.asarray(G).to("q7.8"), W), FormatError, "conv_transpose2d: operands in q7.8 and float"),
        (lambda: ug.conv_transpose2d(ug.asarray(G).to("q7.8"), ug.asarray(W).to("q3.4")), FormatError,
         "conv_transpose2d: operands in q7.8 and q3.4, and no rule"),
        (lambda: ug.conv_transpose1d(ug.asarray([[[1]]]), ug.asarray([[[1]]])), FormatError, "expected floats or fixed point"),
    ],
)  # fmt: skip
def test_what_is_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
