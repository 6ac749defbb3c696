"""The definition in NumPy's int64, where no value on the way needs more. Limited by memory: each step is a pass of its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import INTEGERS, Array
from ulpgrad.kernels.fixed import spec
from ulpgrad.kernels.fixed.cut import Cut, applied, limited, quotient
from ulpgrad.kernels.registry import Request, kernel


def fits(request: Request) -> str | None:
    """Why int64 does not hold what a call meets, or None."""
    cut: Cut = request.params["cut"]
    return None if cut.width in (32, 64) else "takes calls whose intermediate values fit 64 bits"


def _wide(x: Array) -> Array:
    return np.atleast_1d(x).astype(np.int64)


def _shaped(result: Any, *operands: Array) -> Any:
    return spec.shaped(result, np.broadcast_shapes(*(x.shape for x in operands)))


@kernel(spec.add, "cpu/numpy-int64", rank=10, formats=INTEGERS, where=fits)
def add(a: Array, b: Array, words: Array | None, *, left: int, right: int, subtract: bool, cut: Cut) -> Any:
    first, second = _wide(a) << left, _wide(b) << right
    return _shaped(applied(first - second if subtract else first + second, cut, words), a, b)


@kernel(spec.multiply, "cpu/numpy-int64", rank=10, formats=INTEGERS, where=fits)
def multiply(a: Array, b: Array, words: Array | None, *, cut: Cut) -> Any:
    return _shaped(applied(_wide(a) * _wide(b), cut, words), a, b)


@kernel(spec.divide, "cpu/numpy-int64", rank=10, formats=INTEGERS, where=fits)
def divide(a: Array, b: Array, words: Array | None, *, left: int, right: int, cut: Cut) -> Any:
    codes, outside = limited(quotient(_wide(a) << left, _wide(b) << right, cut, words), cut)
    return _shaped(codes if outside is None else (codes, outside), a, b)


@kernel(spec.rescale, "cpu/numpy-int64", rank=10, formats=INTEGERS, where=fits)
def rescale(x: Array, words: Array | None, *, sign: str, cut: Cut) -> Any:
    v = _wide(x)
    v = -v if sign == "negate" else np.abs(v) if sign == "absolute" else v
    return _shaped(applied(v, cut, words), x)


@kernel(spec.matmul, "cpu/numpy-int64", rank=10, formats=INTEGERS, where=fits)
def matmul(a: Array, b: Array, words: Array | None, *, cut: Cut) -> Any:
    return applied(np.matmul(a.astype(np.int64), b.astype(np.int64)), cut, words)
