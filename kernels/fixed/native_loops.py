"""C++: values pass a cacheful at a time through 32, 64 or 128 bits, whatever holds them all; 8- and 16-bit words that stay
what they are have loops in registers. Any layout, threaded. Its limit: memory, and divisions, which no vector unit has."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import INTEGERS, Array
from ulpgrad.kernels import native
from ulpgrad.kernels.fixed import spec
from ulpgrad.kernels.fixed.cut import UNBOUNDED, Cut
from ulpgrad.kernels.registry import Request, kernel

ADD, SUBTRACT, MULTIPLY, DIVIDE, ONE = 0, 1, 2, 3, 4  # FixedKind in csrc/cpu/fixed.h; one operand: ONE + place in SIGNS


def fits(request: Request) -> str | None:
    """Why no machine integer holds what a call meets, or None."""
    cut: Cut = request.params["cut"]
    return None if cut.width != UNBOUNDED else "takes calls whose intermediate values fit 128 bits"


def _run(kind: int, a: Array, b: Array | None, words: Array | None, cut: Cut, left: int = 0, right: int = 0) -> Any:
    try:
        return native.module().fixed_apply(kind, a, b, words, left, right, cut.fields, cut.report)
    except ValueError:  # of memory that is not aligned, say
        tidy = [None if x is None else np.require(x, requirements=["C", "A"]) for x in (a, b, words)]
        return native.module().fixed_apply(kind, *tidy, left, right, cut.fields, cut.report)


@kernel(spec.add, "cpu/native-loops", rank=50, formats=INTEGERS, where=fits)
def add(a: Array, b: Array, words: Array | None, *, left: int, right: int, subtract: bool, cut: Cut) -> Any:
    return _run(SUBTRACT if subtract else ADD, a, b, words, cut, left, right)


@kernel(spec.multiply, "cpu/native-loops", rank=50, formats=INTEGERS, where=fits)
def multiply(a: Array, b: Array, words: Array | None, *, cut: Cut) -> Any:
    return _run(MULTIPLY, a, b, words, cut)


@kernel(spec.divide, "cpu/native-loops", rank=50, formats=INTEGERS, where=fits)
def divide(a: Array, b: Array, words: Array | None, *, left: int, right: int, cut: Cut) -> Any:
    return _run(DIVIDE, a, b, words, cut, left, right)


@kernel(spec.rescale, "cpu/native-loops", rank=50, formats=INTEGERS, where=fits)
def rescale(x: Array, words: Array | None, *, sign: str, cut: Cut) -> Any:
    return _run(ONE + spec.SIGNS.index(sign), x, None, words, cut)


@kernel(spec.matmul, "cpu/native-loops", rank=50, formats=INTEGERS, where=fits)
def matmul(a: Array, b: Array, words: Array | None, *, cut: Cut) -> Any:
    shape = spec.matmul_shape(a, b)
    left, right = (_stack(x, shape[:-2]) for x in (a, b))
    drawn = None if words is None else np.ascontiguousarray(words).reshape(-1, *shape[-2:])
    return spec.shaped(native.module().fixed_matmul(left, right, drawn, cut.fields, cut.report), shape)


def _stack(x: Array, lead: tuple[int, ...]) -> Array:
    """A stack of matrices side by side in memory: one that serves all, or as many as the result has."""
    if x.ndim > 2 and x.shape[:-2] != lead and np.prod(x.shape[:-2]) != 1:
        x = np.broadcast_to(x, (*lead, *x.shape[-2:]))
    size = int(np.prod(x.shape[:-2]))
    return np.require(x, requirements=["C", "A"]).reshape(size, *x.shape[-2:])
