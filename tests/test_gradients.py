"""Gradients against central differences, to second order, from a table of every differentiable array function.

Two checks at the end keep the table honest: nothing that records a gradient is missing from it, and whatever has no
gradient says so when one is asked for.
"""

from __future__ import annotations

import gc
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.autograd import Node
from ulpgrad.differentiable import Primitive
from ulpgrad.errors import GradientError
from ulpgrad.formats import as_format
from ulpgrad.ops import creation, einsum, elementwise, indexing, linalg, manipulation, reduction, sorting
from ulpgrad.testing import gradcheck

Function = Callable[..., Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A function of float64 tensors of some shapes, whose values lie between low and high (without 0 within 0.1)."""

    name: str
    function: Function
    shapes: tuple[Shape, ...]
    low: float = -2
    high: float = 2
    order: int = 2


def unary(name: str, low: float = -2, high: float = 2, order: int = 2, **params: Any) -> list[Case]:
    function = getattr(ug, name)
    spelled = name + "".join(f"-{v}" for v in params.values())
    return [Case(spelled, lambda x: function(x, **params), ((2, 3),), low, high, order)]


def binary(name: str, low: float = -2, high: float = 2, order: int = 2) -> list[Case]:
    shapes: list[tuple[Shape, Shape]] = [((2, 3), (2, 3)), ((2, 1), (3,)), ((), (2, 2))]
    function = getattr(ug, name)
    return [Case(f"{name}-{a}-{b}", function, (a, b), low, high, order) for a, b in shapes]


def cases(name: str, *given: tuple[Function, Shape] | tuple[Function, Shape, Shape], **domain: Any) -> list[Case]:
    return [Case(f"{name}-{i}", function, shapes, **domain) for i, (function, *shapes) in enumerate(given)]  # type: ignore[arg-type]


MASK = np.array([[True, False, True], [False, False, True]])
ROWS = np.array([1, 0, 1, -1])

ELEMENTWISE = [
    *(c for n in ("positive", "negative", "abs", "square", "exp", "expm1", "sin", "cos", "atan", "sinh", "cosh",
                  "tanh") for c in unary(n)),
    *(c for n in ("asinh", "erf", "sigmoid", "relu", "leaky_relu", "silu", "softplus") for c in unary(n)),
    *(c for n in ("sqrt", "reciprocal", "log", "log2", "log10") for c in unary(n, 0.4, 2)),
    *(c for n in ("asin", "acos", "atanh") for c in unary(n, -0.7, 0.7)),
    *(c for n in ("floor", "ceil", "trunc", "round", "sign") for c in unary(n, 0.6, 0.9)),
    *unary("log1p", -0.5, 2), *unary("acosh", 1.5, 3), *unary("tan", -1, 1),
    *unary("gelu", approximate="none"), *unary("gelu", approximate="tanh"), *unary("leaky_relu", negative_slope=0.3),
    *unary("clip", min=-1.0, max=0.8),
    *(c for n in ("add", "subtract", "multiply", "maximum", "minimum", "logaddexp", "copysign") for c in binary(n)),
    *(c for n in ("divide", "atan2", "hypot", "pow") for c in binary(n, 0.5, 2)),
    *binary("floor_divide", 1.1, 1.9), *binary("remainder", 1.1, 1.9),
    *cases("clip", (ug.clip, (2, 3), (3,)), (lambda x, h: ug.clip(x, None, h), (2, 3), (2, 1)),
           (lambda x, h: ug.clip(x, x[0] - 1, h), (2, 3), ())),
    *cases("where", (lambda x, y: ug.where(ug.asarray(MASK), x, y), (2, 3), (3,)),
           (lambda x: ug.where(x > 0, x * x, 1.0), (2, 3))),
    *cases("pow", (lambda x: x**3, (2, 3)), (lambda x: 2.0**x, (2, 3)), (lambda x: x**0, (3,)), order=2),
    *cases("operators", (lambda x, y: -(2 - x) * y / (1 + y * y) + abs(x) - +y, (2, 3), (3,))),
]  # fmt: skip

REDUCTIONS = [
    case
    for name in ("sum", "mean", "max", "min", "prod", "var", "std", "logsumexp")
    for function in [getattr(ug, name)]
    for case in cases(
        name,
        (function, (2, 3)),
        (lambda x, f=function: f(x, axis=1), (2, 3)),
        (lambda x, f=function: f(x, axis=(0, -1), keepdims=True), (2, 2, 2)),
    )
] + [
    *cases("var", (lambda x: ug.var(x, axis=0, correction=1), (3, 2))),
    *cases("cumulative_sum", (lambda x: ug.cumulative_sum(x, axis=0, include_initial=True), (3, 2))),
    *cases("cumulative_prod", (lambda x: ug.cumulative_prod(x, axis=1, include_initial=True), (2, 3))),
    *cases("diff", (lambda x, y: ug.diff(x, n=2, prepend=y), (2, 3), (2, 1))),
    *cases("sum-dtype", (lambda x: ug.sum(x, dtype=ug.float64), (3,))),
]

MOVES = [
    *cases("reshape", (lambda x: ug.reshape(x, (3, -1)), (2, 3)), (lambda x: x.mT.reshape(6), (2, 3)),
           (lambda x: ug.flatten(x, 1), (1, 2, 2))),
    *cases("permute_dims", (lambda x: ug.permute_dims(x, (2, 0, 1)), (2, 1, 2)), (ug.matrix_transpose, (2, 3))),
    *cases("moveaxis", (lambda x: ug.moveaxis(x, 0, -1), (2, 1, 2))),
    *cases("squeeze", (lambda x: ug.expand_dims(ug.squeeze(x, 1), axis=0), (2, 1))),
    *cases("broadcast_to", (lambda x: ug.broadcast_to(x, (2, 2, 3)), (2, 1)),
           (lambda x, y: tuple(ug.broadcast_arrays(x, y)), (2, 1), (2,))),
    *cases("concat", (lambda x, y: ug.concat([x, y, x], axis=1), (2, 2), (2, 1)),
           (lambda x, y: ug.concat([x, y], axis=None), (2, 2), (3,))),
    *cases("stack", (lambda x, y: ug.stack([x, y * x], axis=-1), (2, 2), (2, 2)),
           (lambda x: ug.unstack(x, axis=1), (2, 3))),
    *cases("asarray", (lambda x: ug.asarray([x[0], x[1] * x[2]]), (3,))),
    *cases("flip", (lambda x: ug.flip(x, axis=1), (2, 3))),
    *cases("roll", (lambda x: ug.roll(x, 2), (2, 3)), (lambda x: ug.roll(x, (1, -2), axis=(0, 1)), (2, 3))),
    *cases("tile", (lambda x: ug.tile(x, (2, 2)), (2, 1)), (lambda x: ug.tile(x, (2,)), (2, 2))),
    *cases("repeat", (lambda x: ug.repeat(x, 2), (2, 2)),
           (lambda x: ug.repeat(x, ug.asarray([2, 0, 1]), axis=1), (2, 3))),
    *cases("tril", (ug.tril, (3, 3)), (lambda x: ug.triu(x, k=1), (2, 3))),
    *cases("meshgrid", (lambda x, y: tuple(ug.meshgrid(x, y)), (2,), (3,))),
    *cases("astype", (lambda x: ug.astype(x, ug.float64), (3,)), (ug.copy, (3,))),
]  # fmt: skip

INDEXING = [
    *cases(
        "getitem",
        (lambda x: x[1], (2, 3)), (lambda x: x[1, 2], (2, 3)), (lambda x: x[::-1, 1:], (2, 3)),
        (lambda x: x[..., None, 0], (2, 3)),
        (lambda x: x[ug.asarray(ROWS)], (3, 2)), (lambda x: x[:, [0, 0, 2]], (2, 3)),
        (lambda x: x[[0, 1], [2, 2]], (2, 3)),
        (lambda x: x[np.array([[0, 1], [1, 1]])], (2, 2)), (lambda x: x[0, :, [1, 1]], (2, 2, 2)),
        (lambda x: x[[1, 1], 1:], (2, 3)), (lambda x: x[:, [1, 1, 0], -1], (2, 2, 3)),
        (lambda x: x[[[1], [0]], [0, -2, 1]], (2, 3)), (lambda x: x[1, [0, 0]], (2, 3)),
        (lambda x: x[ug.asarray(MASK)], (2, 3)), (lambda x: x[MASK[:, 0]], (2, 3)),
        (lambda x: x[MASK[:, 0], [0, 0]], (2, 3)),
        (lambda x: x[[]], (2, 3)), (lambda x: x[None, [1, 0, 1], None], (2, 2)), (lambda x: x[True], (2,)),
    ),
    *cases("take", (lambda x: ug.take(x, ROWS, axis=1), (2, 3)), (lambda x: ug.take(x, [[0, 0], [1, 2]]), (3,))),
    *cases(
        "take_along_axis",
        (lambda x: ug.take_along_axis(x, ug.asarray([[0, 0, 2], [1, 2, 1]])), (2, 3)),
        (lambda x: ug.take_along_axis(x, ug.asarray([[1], [-1]]), axis=0), (2, 3)),
        (lambda x: ug.take_along_axis(x, ug.asarray([[0], [0], [1]])) ** 3, (1, 2)),
    ),
    *cases("sort", (ug.sort, (2, 3)), (lambda x: ug.sort(x, axis=0, descending=True), (3, 2))),
    *cases("topk", (lambda x: ug.topk(x, 2)[0], (2, 3)), (lambda x: ug.topk(x, 1, axis=0, largest=False)[0], (3, 2))),
]  # fmt: skip

PRODUCTS = [
    *cases(
        "matmul",
        (ug.matmul, (2, 3), (3, 2)), (ug.matmul, (3,), (3,)), (ug.matmul, (3,), (3, 2)), (ug.matmul, (2, 3), (3,)),
        (ug.matmul, (2, 1, 2), (2, 2)), (ug.matmul, (2, 1, 2, 1), (2, 1, 2)), (lambda x: x.mT @ x, (2, 3)),
        (ug.matmul, (2, 0), (0, 2)),
    ),
    *cases("linear", (ug.linear, (2, 3), (2, 3), (2,)), (lambda x, w: ug.linear(x, w), (2, 1, 3), (2, 3)),
           *((lambda x, w, b, a=a: ug.linear(x, w, b, a), (2, 2), (2, 2), (2,)) for a in linalg.ACTIVATIONS),
           (lambda x, w, b, s, r: ug.linear(x, w, b, scale=s, residual=r), (2, 3), (2, 3), (2,), (2,), (2, 2)),
           (lambda x, w, r: ug.linear(x, w, None, "tanh", scale=-0.7, residual=r), (2, 1, 3), (2, 3), (2, 1, 2))),
    *cases("vecdot", (ug.vecdot, (2, 3), (3,)), (lambda x, y: ug.vecdot(x, y, axis=-2), (3, 2), (3, 1))),
    *cases("tensordot", (lambda x, y: ug.tensordot(x, y, axes=((0, 2), (1, 0))), (2, 1, 2), (2, 2)),
           (lambda x, y: ug.tensordot(x, y, axes=0), (2,), (2,))),
    *cases("outer", (ug.outer, (2,), (3,))),
    *cases(
        "einsum",
        (lambda x, y: ug.einsum("ij,jk->ki", x, y), (2, 3), (3, 2)), (lambda x: ug.einsum("ii->i", x), (3, 3)),
        (lambda x: ug.einsum("ij->", x), (2, 3)),
        (lambda x, y: ug.einsum("b...i,...i->...b", x, y), (2, 2, 2), (1, 2)),
        (lambda x, y, z: ug.einsum("i,ij,j", x, y, z), (2,), (2, 2), (2,)),
    ),
]  # fmt: skip

CASES = [*ELEMENTWISE, *REDUCTIONS, *MOVES, *INDEXING, *PRODUCTS]


def inputs(case: Case, layout: str = "contiguous") -> list[ug.Tensor]:
    rng = np.random.default_rng(len(case.name))
    made = []
    for shape in case.shapes:
        x = rng.uniform(case.low, case.high, shape)
        x = np.asarray(np.where(np.abs(x) < 0.1, x + 0.25, x))
        if layout == "strided" and x.ndim:
            wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]))
            wide[..., ::-2] = x
            x = wide[..., ::-2]
        made.append(ug.Tensor(x, ug.float64).requires_grad_())
    return made


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_gradient(case: Case) -> None:
    assert gradcheck(case.function, inputs(case), order=case.order)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_gradient_of_strided_operands_and_strided_gradients(case: Case) -> None:
    assert gradcheck(case.function, inputs(case, "strided"))
    plain, strided = inputs(case), inputs(case, "strided")
    for x, y in zip(grads(case.function, plain), grads(case.function, strided), strict=True):
        np.testing.assert_allclose(x.storage, y.storage, rtol=1e-13, atol=1e-15)


def grads(function: Function, args: list[ug.Tensor], create_graph: bool = False) -> tuple[ug.Tensor, ...]:
    """Gradients for seeds that lie reversed in memory."""
    outs = function(*args)
    outs = [o for o in (outs if isinstance(outs, tuple) else (outs,)) if o.requires_grad]
    rng = np.random.default_rng(0)
    seeds = [ug.flip(ug.asarray(rng.uniform(-1, 1, o.shape))) for o in outs]
    return ug.grad(outs, args, seeds, create_graph=create_graph)  # type: ignore[no-any-return]


SIZELESS = [
    c for c in CASES if c.name.split("-")[0] in elementwise.__all__ and len(c.shapes) == 1 and "where" not in c.name
]


@pytest.mark.parametrize("case", SIZELESS, ids=lambda c: c.name)
def test_gradient_of_0d_and_empty(case: Case) -> None:
    for shape in ((), (0,), (2, 0)):
        x = ug.full(shape, (case.low + case.high) / 2 + 0.01, dtype=ug.float64, requires_grad=True)
        y = case.function(x)
        (g,) = ug.grad([y], [x], [ug.ones_like(y)], create_graph=True)
        assert g.shape == shape
        assert gradcheck(case.function, [x], order=1)


@pytest.mark.parametrize("name", ["sum", "mean", "prod", "var", "cumulative_sum", "cumulative_prod", "sort"])
def test_gradient_of_empty_reductions(name: str) -> None:
    x = ug.zeros((0, 3), requires_grad=True)
    y = getattr(ug, name)(x, axis=0)
    assert ug.grad([y], [x], [ug.ones_like(y)])[0].shape == (0, 3)


def test_gradients_at_zeros_ties_and_edges() -> None:
    x = ug.asarray([0.0, 2.0, 0.0, 3.0], requires_grad=True)
    np.testing.assert_array_equal(ug.grad(ug.prod(x), x).numpy(), [0, 0, 0, 0])
    x = ug.asarray([0.0, 2.0, 3.0], dtype=ug.float64, requires_grad=True)
    np.testing.assert_array_equal(ug.grad(ug.prod(x), x).numpy(), [6, 0, 0])
    assert gradcheck(lambda t: ug.prod(t), [x], order=2)
    assert gradcheck(lambda t: ug.cumulative_prod(t), [x], order=2)
    x = ug.asarray([1.0, 3.0, 3.0], requires_grad=True)
    np.testing.assert_array_equal(ug.grad(ug.max(x), x).numpy(), [0, 0.5, 0.5])
    np.testing.assert_array_equal(ug.grad(ug.sum(ug.maximum(x, 3.0)), x).numpy(), [0, 0.5, 0.5])
    x = ug.zeros(2, requires_grad=True)
    np.testing.assert_array_equal(ug.grad(ug.sum(x**2), x).numpy(), [0, 0])
    np.testing.assert_array_equal(ug.grad(ug.sum(x**0), x).numpy(), [0, 0])
    np.testing.assert_array_equal(ug.grad(ug.sum(ug.relu(x)), x).numpy(), [0, 0])
    np.testing.assert_array_equal(ug.grad(ug.sum(abs(x)), x).numpy(), [0, 0])


@pytest.mark.parametrize("form", [ug.float32, ug.float16, ug.bfloat16], ids=str)
def test_gradients_have_the_format_of_their_operand(form: Any) -> None:
    for case in CASES:
        args = [x.detach().astype(form).requires_grad_() for x in inputs(case)]
        if case.name.startswith(("astype", "sum-dtype", "x[")):
            continue
        outs = case.function(*args)
        for g, x in zip(ug.grad(list(outs) if isinstance(outs, tuple) else [outs], args,
                                [ug.ones_like(o) for o in (outs if isinstance(outs, tuple) else [outs])]), args,
                                strict=True):  # fmt: skip
            assert g.dtype is form, case.name
            assert g.shape == x.shape, case.name
    x = ug.ones(2, dtype=form, requires_grad=True)
    w = ug.ones(2, dtype=ug.float64, requires_grad=True)
    (x * w).sum().backward()
    assert (x.grad.dtype, w.grad.dtype) == (form, ug.float64)


def test_picking_many_times_sums_in_wide() -> None:
    """4096 ones in bfloat16 sum to 4096, which adding one by one in the format would not reach."""
    x = ug.zeros((3, 2), dtype=ug.bfloat16, requires_grad=True)
    x[np.ones(4096, int)].backward(ug.ones((4096, 2), dtype=ug.bfloat16))
    np.testing.assert_array_equal(x.grad.numpy().astype(float), [[0, 0], [4096, 4096], [0, 0]])


def test_an_index_changed_later_does_not_change_the_gradient() -> None:
    for index in (np.array([0, 1]), ug.asarray([0, 1])):
        for pick in (lambda x, i: x[i], ug.take, ug.take_along_axis):
            x = ug.ones(3, requires_grad=True)
            y = pick(x, index)
            index[0] = 2
            y.sum().backward()
            np.testing.assert_array_equal(x.grad.numpy(), [1, 1, 0])
            index[0] = 0


# The table is complete, and nothing is cut silently

MODULES = (creation, elementwise, indexing, linalg, manipulation, reduction, sorting)


def names_in_graph(tensors: tuple[ug.Tensor, ...]) -> Iterator[str]:
    seen: set[int] = set()
    todo: list[Node] = [t._node[0] for t in tensors if t._node is not None]
    while todo:
        node = todo.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node.name
            todo.extend(edge[0] for edge in node.edges if isinstance(edge, tuple))


def primitives() -> list[Primitive]:
    return sorted((o for o in gc.get_objects() if isinstance(o, Primitive)), key=lambda p: p.op.name)


def differentiable_in(modules: tuple[Any, ...]) -> set[str]:
    """Ops with rules that belong to these modules' kernel families, and data movements named in their source."""
    families = {"elementwise", "reduction", "matmul", "cast", "gather"}
    names = {p.op.name for p in primitives() if (p.has_rules or p.composite) and p.op.family in families}
    for module in modules:
        names |= set(re.findall(r'(?:moved|_picked)\(\s*"(\w+)"', inspect.getsource(module)))
    return names


def test_no_differentiable_function_is_missing_from_the_table() -> None:
    met: set[str] = set()
    for case in CASES:
        args = inputs(case)
        outs = case.function(*args)
        met.update(names_in_graph(outs if isinstance(outs, tuple) else (outs,)))
        met.update(names_in_graph(grads(case.function, args, create_graph=True)))
    x = ug.ones(2, requires_grad=True)
    met.update(names_in_graph((ug.astype(x, ug.float64),)))
    rounded = {
        "matmul_stochastic",
        "linear_stochastic",
    }  # have no differences: tests/test_matmul_stochastic.py has their gradients
    assert differentiable_in((*MODULES, inspect.getmodule(einsum))) - met == rounded


def float_calls(primitive: Primitive) -> Iterator[tuple[list[ug.Tensor | None], dict[str, Any]]]:
    """The op's samples with its float operands in float64 (float32 where that is not taken), requiring gradients."""
    form = next((f for f in (ug.float64, ug.float32) if f in primitive.op.formats), None)
    for sample in primitive.op.samples():
        tensors: list[ug.Tensor | None] = []
        for a in sample.arrays:
            if a is None:
                tensors.append(None)
            elif np.asarray(a).dtype.kind == "f" and form is not None:
                tensors.append(ug.asarray(np.asarray(a)).astype(form).requires_grad_())
            else:
                tensors.append(ug.Tensor(np.asarray(a), as_format(np.asarray(a).dtype)))
        if any(t is not None and t.requires_grad for t in tensors):
            yield tensors, dict(sample.params)
            return


def test_asking_for_a_gradient_that_does_not_exist_raises() -> None:
    """Every op without rules whose result is a float, and every float operand without a rule."""
    refused = []
    for primitive in primitives():
        for tensors, params in float_calls(primitive):
            for position, (name, t) in enumerate(zip(primitive.operands, tensors, strict=False)):
                if (
                    t is None
                    or not t.requires_grad
                    or name in primitive.rules
                    or primitive.joint
                    or primitive.composite
                ):
                    continue
                alone = [u if u is None or i == position else u.detach() for i, u in enumerate(tensors)]
                try:
                    out = primitive(*alone, **params)
                except ug.errors.FormatError:
                    continue
                out = out[0] if isinstance(out, tuple) else out
                if out.dtype.kind == "float":
                    assert out.requires_grad, f"{primitive} cuts the gradient of {name}"
                    with pytest.raises(GradientError, match="has no gradient"):
                        out.backward(ug.ones_like(out))
                    refused.append(primitive.op.name)
                else:
                    assert not out.requires_grad
                    with pytest.raises(GradientError, match="does not require a gradient"):
                        out.backward(ug.ones_like(out))
    assert "nextafter" in refused


def test_functions_outside_the_graph_give_no_floats_or_raise() -> None:
    x = ug.asarray([3.0, 1.0, 2.0], requires_grad=True)
    for y in (
        ug.argmax(x),
        ug.argsort(x),
        ug.searchsorted(x, x),
        ug.count_nonzero(x),
        x > 1,
        ug.topk(x, 1)[1],
        ug.nonzero(x)[0],
    ):
        assert y.dtype.kind != "float"
        assert not y.requires_grad
    for unique in (ug.unique_values, ug.unique_all, ug.unique_counts, ug.unique_inverse):
        with pytest.raises(GradientError, match=r"no gradient.*detach"):
            unique(x)
    with pytest.raises(GradientError):
        x.numpy()
