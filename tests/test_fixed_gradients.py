"""Gradients of fixed-point operations: those of the real function at the decoded operands, as the estimator lets them pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import fixed
from ulpgrad.errors import GradientError
from ulpgrad.formats import Fixed, Format, Q, float32, float64
from ulpgrad.testing import gradcheck

RNG = np.random.default_rng(0)
FORM = Q(7, 8)


def leaf(values: Any, form: Fixed = FORM) -> ug.Tensor:
    return ug.asarray(np.asarray(values, np.float64)).to(form).requires_grad_()


A = RNG.uniform(-3, 3, (3, 4))
B = RNG.uniform(0.5, 3, (3, 4))
IMAGES, FILTERS = RNG.uniform(-1, 1, (2, 2, 5, 5)), RNG.uniform(-1, 1, (4, 2, 3, 3))

# Each on tensors of fixed point or of floats alike; none of these saturates.
FUNCTIONS: dict[str, tuple[Callable[..., ug.Tensor], tuple[Any, ...]]] = {
    "add": (lambda a, b: a + b, (A, B)),
    "broadcast": (lambda a, b: a * b, (A, B[0])),
    "subtract": (lambda a, b: a - b, (A, B)),
    "multiply": (lambda a, b: a * b, (A, B)),
    "number": (lambda a: 2.5 * a - 1, (A,)),
    "divide": (lambda a, b: a / b, (A, B)),
    "negative": (lambda a: -a, (A,)),
    "abs": (lambda a: abs(a), (A,)),
    "square": (lambda a: ug.square(a), (A,)),
    "left": (lambda a: a * 4 if a.dtype.kind == "float" else a << 2, (A,)),
    "right": (lambda a: a / 8 if a.dtype.kind == "float" else a >> 3, (A,)),
    "relu": (lambda a: ug.relu(a), (A,)),
    "clip": (lambda a: ug.clip(a, -1, 1.5), (A,)),
    "maximum": (lambda a, b: ug.maximum(a, b), (A, B)),
    "where": (lambda a, b: ug.where(a > b, a, b), (A, B)),
    "sum": (lambda a: ug.sum(a, axis=0), (A,)),
    "mean": (lambda a: ug.mean(a, axis=1, keepdims=True), (A,)),
    "max": (lambda a: ug.max(a, axis=1), (A,)),
    "matmul": (lambda a, b: ug.matmul(a, ug.matrix_transpose(b)), (A, B)),
    "vecdot": (lambda a, b: ug.vecdot(a, b), (A, B)),
    "linear": (lambda a, b, c: ug.linear(a, b, c), (A, B, B[:, 0])),
    "linear with relu": (lambda a, b: ug.linear(a, b, None, "relu"), (A, B)),
    "conv2d": (lambda a, b, c: ug.conv2d(a, b, c, 2, 1), (IMAGES, FILTERS, B[0])),
    "max_pool2d": (lambda a: ug.max_pool2d(a, 2), (IMAGES,)),
    "avg_pool2d": (lambda a: ug.avg_pool2d(a, 3, 1, 1), (IMAGES,)),
    "adaptive_max_pool2d": (lambda a: ug.adaptive_max_pool2d(a, 3), (IMAGES,)),
    "adaptive_avg_pool2d": (lambda a: ug.adaptive_avg_pool2d(a, (3, 2)), (IMAGES,)),
    "sigmoid": (lambda a: ug.sigmoid(a), (A,)),
    "tanh": (lambda a: ug.tanh(a), (A,)),
    "exp": (lambda a: ug.exp(a), (A,)),
    "softmax": (lambda a: ug.softmax(a, axis=0), (A,)),
    "moved": (lambda a: (ug.permute_dims(a, (1, 0)) * 2)[1:, ::2].reshape(-1), (A,)),
}


@pytest.mark.parametrize("form", [FORM, Q(15, 32)], ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient_is_that_of_the_real_function(name: str, form: Fixed) -> None:
    function, values = FUNCTIONS[name]
    leaves = [leaf(v, form) for v in values]
    compute = float64 if form.bits > 24 else float32
    reals = [t.detach().to(compute).requires_grad_() for t in leaves]
    y, real = function(*leaves), function(*reals)
    assert y.dtype is form
    g = ug.asarray(RNG.uniform(-1, 1, y.shape)).to(compute)
    got, want = (ug.grad(out, ins, g) for out, ins in ((y, leaves), (real, reals)))
    for a, b in zip(got, want, strict=True):
        assert a.dtype is compute
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5 if compute is float32 else 1e-12, atol=1e-6)
    np.testing.assert_allclose(y.detach().numpy(), real.detach().numpy(), atol=4 * form.eps)


@pytest.mark.parametrize("name", ["multiply", "divide", "square", "matmul", "conv2d", "tanh", "exp", "softmax", "left"])
def test_second_derivatives(name: str) -> None:
    function, values = FUNCTIONS[name]
    leaves = [leaf(v, Q(15, 32)) for v in values]
    reals = [t.detach().to(float64).requires_grad_() for t in leaves]
    found = []
    for ins in (leaves, reals):
        first = ug.grad(ug.sum(ug.square(function(*ins))), ins, create_graph=True)
        found.append(ug.grad(sum(ug.sum(ug.square(g)) for g in first), ins))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-6)


def test_clipped_straight_through_and_wrapping() -> None:
    def gradient(**rule: Any) -> list[float]:
        a, b = leaf([100.0, -100.0, 3.0]), leaf([50.0, -50.0, 2.0])
        fixed.add(a, b, **rule).backward(ug.ones(3))
        assert a.grad is not None
        return a.grad.numpy().tolist()

    assert gradient() == [0, 0, 1]
    assert gradient(estimator="straight_through") == [1, 1, 1]
    assert gradient(overflow="wrap") == [1, 1, 1]
    assert gradient(overflow="wrap", estimator="clipped") == [0, 0, 1]
    assert gradient(result="full") == [1, 1, 1]
    assert gradient(result=Q(1, 4)) == [0, 0, 0]


def test_an_estimator_of_ones_own_sees_the_real_result() -> None:
    seen: list[Any] = []

    def passes_below_ten(g: ug.Tensor, y: ug.Tensor, form: Format) -> ug.Tensor:
        seen.append((y.detach().numpy().tolist(), form))
        return ug.where(abs(y) < 10, g, 0.0)

    a = leaf([1.5, 20.0, 100.0])
    with fixed.arithmetic(estimator=passes_below_ten):
        y = a * 2
    y.backward(ug.ones(3))
    assert a.grad is not None
    assert a.grad.numpy().tolist() == [2, 0, 0]
    assert seen == [([3.0, 40.0, 200.0], FORM)]


@pytest.mark.parametrize("name", ["multiply", "divide", "matmul", "tanh", "conv2d"])
def test_gradcheck_through_the_estimator(name: str) -> None:
    """Of the decoded function: fixed-point values stand for what they decode to, which central differences can vary."""
    function, values = FUNCTIONS[name]
    grid = [leaf(v).detach().to(float64).requires_grad_() for v in values]
    gradcheck(function, grid)
    got = ug.grad(ug.sum(function(*[leaf(v) for v in values]).to(float32)), [], allow_unused=True)
    assert got == ()


def test_division_by_zero_stops_the_gradient() -> None:
    a, b = leaf([1.0, -2.0, 3.0]), leaf([0.0, 2.0, 0.0])
    y = a / b
    assert y.detach().numpy().tolist() == [FORM.max, -1.0, FORM.max]
    y.backward(ug.ones(3))
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.numpy().tolist() == [0, 0.5, 0]
    assert b.grad.numpy().tolist() == [0, 0.5, 0]


def test_mixed_formats_and_a_float_upstream() -> None:
    weights = ug.asarray(A).to(float32).requires_grad_()
    with fixed.arithmetic(result=Q(9, 12)):
        y = ug.matmul(weights.to(Q(3, 4)), leaf(B, Q(5, 20)).T)
    assert y.dtype is Q(9, 12)
    y.to(float32).sum().backward()
    assert weights.grad is not None
    want = np.broadcast_to(ug.asarray(B).to(Q(5, 20)).numpy().sum(0), A.shape)
    np.testing.assert_allclose(weights.grad.numpy(), want, rtol=1e-6)


def test_the_graph_is_guarded() -> None:
    a = leaf([1.0, 2.0])
    y = (a * a).sum()
    y.backward()
    with pytest.raises(GradientError, match="freed"):
        y.backward()
    b = leaf([1.0, 2.0])
    z = b * b
    with ug.no_grad():
        b[0] = 5.0
    with pytest.raises(GradientError, match="written to"):
        z.backward(ug.ones(2))
    with ug.no_grad():
        assert not (a * a).requires_grad
    assert not ug.argmax(a).requires_grad


def test_training_in_fixed_point_learns() -> None:
    """A straight line by gradient descent, with weights, activations and loss in Q7.8."""
    x = ug.asarray(np.linspace(-1, 1, 32)[:, None]).to(FORM)
    target = ug.asarray(np.linspace(-1, 1, 32)[:, None] * 1.5 + 0.25).to(FORM)
    w, b = leaf([[0.0]]), leaf([0.0])
    for _ in range(60):
        loss = ug.mean(ug.square(ug.linear(x, w, b) - target))
        gw, gb = ug.grad(loss, [w, b])
        w = (w.detach().to(float32) - 0.3 * gw).to(FORM).requires_grad_()
        b = (b.detach().to(float32) - 0.3 * gb).to(FORM).requires_grad_()
    assert abs(w.item() - 1.5) < 0.02
    assert abs(b.item() - 0.25) < 0.02
