"""Function: differentiable functions of one's own, and what happens when they break the rules."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import GradientError, ShapeError
from ulpgrad.testing import gradcheck


def leaf(*values: Any) -> ug.Tensor:
    return ug.asarray(list(values), dtype=ug.float64, requires_grad=True)


def equal(x: ug.Tensor | None, expected: Any) -> None:
    assert x is not None
    np.testing.assert_allclose(x.detach().numpy(), expected, rtol=1e-14)


class Cube(ug.Function):
    @staticmethod
    def forward(ctx: Any, x: ug.Tensor, scale: float) -> ug.Tensor:
        ctx.save_for_backward(x)
        ctx.scale = scale
        return x * x * x * scale

    @staticmethod
    def backward(ctx: Any, g: ug.Tensor) -> tuple[ug.Tensor, None]:
        (x,) = ctx.saved_tensors
        assert ctx.needs_input_grad == (True, False)
        return g * x * x * (3 * ctx.scale), None


class Both(ug.Function):
    @staticmethod
    def forward(ctx: Any, x: ug.Tensor, y: ug.Tensor) -> tuple[ug.Tensor, ...]:
        ctx.save_for_backward(x, y)
        return x * y, x + y, ug.argsort(x)

    @staticmethod
    def backward(ctx: Any, *gradients: ug.Tensor) -> tuple[ug.Tensor, ug.Tensor]:
        x, y = ctx.saved_tensors
        product, total, _ = gradients
        return product * y + total, product * x + total


class Same(ug.Function):
    @staticmethod
    def forward(ctx: Any, x: ug.Tensor) -> ug.Tensor:
        return x

    @staticmethod
    def backward(ctx: Any, g: ug.Tensor) -> ug.Tensor:
        return g * -1.0


def test_function_to_second_order() -> None:
    assert gradcheck(lambda x: Cube.apply(x, 2.0), [leaf(0.5, -1.0)], order=2)
    assert gradcheck(lambda x, y: Both.apply(x, y)[:2], [leaf(0.5, -1.0), leaf(2.0, 3.0)], order=2)


def test_function_with_unused_and_whole_outputs() -> None:
    x, y = leaf(0.5, -1.0), leaf(2.0, 3.0)
    product, total, order = Both.apply(x, y)
    assert not order.requires_grad
    total.sum().backward(retain_graph=True)
    equal(x.grad, [1, 1])
    x.grad = None
    product.sum().backward()
    equal(x.grad, [2, 3])


def test_function_that_returns_its_input() -> None:
    x = leaf(1.0, 2.0)
    y = Same.apply(x)
    assert y is not x
    assert x.is_leaf
    assert not y.is_leaf
    (y * 3).sum().backward()
    equal(x.grad, [-3, -3])
    a = leaf(1.0) * 2
    Same.apply(Same.apply(a)).sum().backward()


def test_function_that_saves_its_output() -> None:
    class Exp(ug.Function):
        @staticmethod
        def forward(ctx: Any, x: ug.Tensor) -> ug.Tensor:
            y = ug.exp(x)
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx: Any, g: ug.Tensor) -> ug.Tensor:
            return g * ctx.saved_tensors[0]

    x = leaf(0.5)
    y = Exp.apply(x)
    node = weakref.ref(y._node[0])
    y.sum().backward()
    equal(x.grad, np.exp([0.5]))
    del y
    assert node() is None


def test_functions_that_break_the_rules() -> None:
    class Wrong(ug.Function):
        @staticmethod
        def forward(ctx: Any, x: ug.Tensor) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: ug.Tensor) -> Any:
            return g, g

    class NotATensor(Wrong):
        @staticmethod
        def forward(ctx: Any, x: ug.Tensor) -> Any:
            return 3.0

    class WrongShape(Wrong):
        @staticmethod
        def backward(ctx: Any, g: ug.Tensor) -> Any:
            return ug.ones(5)

    class Nothing(ug.Function):
        @staticmethod
        def forward(ctx: Any, x: ug.Tensor) -> ug.Tensor:
            return x * 2

    with pytest.raises(GradientError, match=r"Wrong\.backward returned 2 gradients for 1 arguments"):
        Wrong.apply(leaf(1.0)).backward()
    with pytest.raises(GradientError, match=r"NotATensor\.forward must return tensors, got float"):
        NotATensor.apply(leaf(1.0))
    with pytest.raises(ShapeError, match=r"gradient of shape \(5,\) for an input of shape \(2,\)"):
        WrongShape.apply(leaf(1.0, 2.0)).backward(ug.ones(2))
    with pytest.raises(GradientError, match="no gradient"):
        Nothing.apply(leaf(1.0)).backward()
    y = Cube.apply(leaf(1.0), 1.0)
    y.backward()
    with pytest.raises(GradientError, match="freed"):
        y.backward()
