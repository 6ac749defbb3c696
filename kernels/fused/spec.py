"""`fused`: what a chain of elementwise ops gives, computed step by step and rounded once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ulpgrad.formats import FLOATS, Array, Format, compute_format
from ulpgrad.formats.promotion import result_format
from ulpgrad.kernels.elementwise import spec as elementwise
from ulpgrad.kernels.fused.chain import Builder, Chain
from ulpgrad.kernels.spec import Op, Sample


def values(arrays: tuple[Array, ...], chain: Chain, kind: Any) -> list[Array]:
    """The results of a chain, whole arrays at a time, in NumPy's type `kind`; each has the shape of all operands."""
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    known: list[Any] = [*arrays, *(np.asarray(c, kind) for c in chain.constants)]
    for step in chain.steps:
        known.append(elementwise.OPS[step.op].reference(*(known[s] for s in step.sources), **dict(step.params)))
    return [np.array(np.broadcast_to(known[r], shape), kind) for r in chain.results]


def _reference(*arrays: Array, chain: Chain) -> Any:
    found = values(arrays, chain, np.float64)
    return tuple(found) if len(found) > 1 else found[0]


def _check(*arrays: Array, chain: Chain) -> None:
    elementwise.check_broadcast(chain.name, *arrays)


def _result(*formats: Format | None, chain: Chain) -> Any:
    form = result_format(*(f for f in formats if f is not None))
    return (form,) * len(chain.results) if len(chain.results) > 1 else form


def _size(arrays: tuple[Array, ...]) -> int:
    return math.prod(np.broadcast_shapes(*(a.shape for a in arrays)))


def is_large(arrays: tuple[Array, ...]) -> bool:
    """Whether compiling a loop pays."""
    return _size(arrays) >= elementwise.LARGE


def _polynomial() -> Chain:
    """x (2 x + 0.5) + y"""
    b = Builder(2)
    double = b.step("multiply", [b.operand(0), b.constant(2.0)], {})
    inner = b.step("multiply", [b.step("add", [double, b.constant(0.5)], {}), b.operand(0)], {})
    return b.chain("polynomial", [b.step("add", [inner, b.operand(1)], {})])


def _gated() -> Chain:
    """Where x is below y, tanh(x) times sigmoid(z), else leaky_relu(y) clipped; and exp(-x^2)."""
    b = Builder(3)
    x, y, z = map(b.operand, range(3))
    product = b.step("multiply", [b.step("tanh", [x], {}), b.step("sigmoid", [z], {})], {})
    other = b.step("clip", [b.step("leaky_relu", [y], {"negative_slope": 0.25}), b.constant(-1.0), b.constant(2.0)], {})
    chosen = b.step("where", [b.step("less", [x, y], {}), product, other], {})
    bell = b.step("exp", [b.step("negative", [b.step("square", [x], {})], {})], {})
    return b.chain("gated", [chosen, bell])


def _same() -> Chain:
    """x, and a constant."""
    b = Builder(1)
    return b.chain("same", [b.operand(0), b.constant(1.5), b.operand(0)])


def _unvectorized() -> Chain:
    """sin x + cos x, which Numba does not have, and C++ not in float64; gelu."""
    b = Builder(1)
    x = b.operand(0)
    waves = b.step("add", [b.step("sin", [x], {}), b.step("cos", [x], {})], {})
    return b.chain("waves", [b.step("add", [waves, b.step("gelu", [x], {"approximate": "none"})], {})])


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)

    def normal(*shapes: tuple[int, ...]) -> tuple[Array, ...]:
        return tuple(np.asarray(rng.standard_normal(s)) for s in shapes)

    polynomial, gated, same, waves = _polynomial(), _gated(), _same(), _unvectorized()
    for shapes in (((7,), (7,)), ((3, 5), (5,)), ((4, 1), (1, 3)), ((), ()), ((2, 0), (1,)), ((1500,), (1500,))):
        yield Sample(normal(*shapes), {"chain": polynomial}, f"polynomial {shapes}")
    for three in (
        ((5,), (5,), (5,)),
        ((3, 700), (700,), ()),
        ((200, 300), (200, 1), (300,)),
        ((40_001,), (), (40_001,)),
    ):
        yield Sample(normal(*three), {"chain": gated}, f"gated {three}")
    yield Sample(normal((6, 7)), {"chain": same}, "same")
    yield Sample((np.abs(normal((40,))[0]) + 0.1,), {"chain": waves}, "waves")
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e30, -1e30, 88.0])
    yield Sample((special, special, special), {"chain": gated}, "gated, special values")


def _magnitude(*arrays: Array, chain: Chain) -> Any:
    """The largest value on the way to a result: what cancels has its rounding."""
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    known: list[Any] = [*arrays, *map(np.asarray, chain.constants)]
    for step in chain.steps:
        known.append(elementwise.OPS[step.op].reference(*(known[s] for s in step.sources), **dict(step.params)))
    sizes = [np.broadcast_to(np.abs(np.where(np.isfinite(v), v, 0)), shape) for v in known if v.dtype.kind == "f"]
    largest = np.max(sizes, axis=0)
    return tuple(largest for _ in chain.results) if len(chain.results) > 1 else largest


fused = Op(
    "fused",
    signature="(x1, ..., *, chain) -> (y1, ...), of the shape that all operands broadcast to",
    doc="A chain of elementwise ops: in one pass over memory where a rung can.",
    reference=_reference,
    check=_check,
    result=_result,
    formats=FLOATS,
    flops=lambda *arrays, chain: chain.flops * _size(arrays),
    samples=_samples,
    ulps={form: 16 if compute_format(form) is form else 1 for form in FLOATS},
    magnitude=_magnitude,
    key=lambda *arrays, chain: (chain, is_large(arrays)),
)
