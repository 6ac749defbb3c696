"""Products and sums in an accumulator of a chosen float format, with their gradients.

`accumulate=` of sum, mean, cumulative_sum, matmul, vecdot, tensordot, linear and conv2d takes an `Accumulate`, or a format or
its name for one running accumulator. The gradient's estimator is the exact function's: rounding counts as the identity.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ulpgrad.differentiable import Primitive, prepared
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import RANDOM_BITS, Format, as_format, float32
from ulpgrad.generator import BLOCK, Generator, generator_or_default
from ulpgrad.kernels.accumulate import spec
from ulpgrad.kernels.matmul.spec import check_matmul
from ulpgrad.ops.creation import astype
from ulpgrad.ops.manipulation import broadcast_to, flip, matrix_transpose, reshape
from ulpgrad.tensor import Tensor

__all__ = ["Accumulate"]

Shape = tuple[int, ...]
# Blocks of the random stream between a product and its gradients' products: no draw comes that far.
APART = 1 << 100


@dataclass(frozen=True)
class Accumulate:
    """An accumulator: a float format, and how sums are taken in it.

        ug.matmul(a, b, accumulate=ug.Accumulate("e6m9", chunk=64))     # Wang et al. 2018: 1-6-9, chunks of 64

    Terms are added in order of their axis. Each addition is exact and rounded once to `format` (a signed Float with at least
    one mantissa bit, or its name). Terms are the values summed or their products, which are exact for operands up to
    float32; products of float64 operands are rounded to float64 before. The result comes in the operands' common format,
    rounded once more where that does not hold the sum.

    - `chunk`: terms per partial sum. 1: one accumulator runs through all. c: every c terms are summed from zero, and these
      sums are added in order, in the same format.
    - `rounding`: "nearest_even" or "stochastic". Stochastic rounding takes `random_bits` bits of a word for each addition
      and is unbiased to these; the words are a function of the generator's seed and position (default: ulpgrad.random's),
      the place of the result and the number of the addition, so that results are repeatable on any number of threads.
    - `overflow`: "ieee" (infinity, or NaN where there is none, or the largest value where there is neither) or "saturate"
      (the largest value, for infinities too; NaN for those in fnuz formats). NaN stays NaN, also in formats without one. A
      float64 accumulator does not saturate.

    Raises FormatError and ArgumentError for what an accumulator cannot be.
    """

    format: Any
    chunk: int = 1
    _: KW_ONLY
    rounding: str = "nearest_even"
    overflow: str = "ieee"
    random_bits: int = RANDOM_BITS
    generator: Generator | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "format", as_format(self.format))
        if self.generator is not None and not isinstance(self.generator, Generator):
            raise ArgumentError(f"Accumulate: generator={self.generator!r}: expected a Generator, or None")
        spec.check_rule("Accumulate", **self._rule())

    def _rule(self) -> dict[str, Any]:
        return {
            "format": self.format, "chunk": self.chunk, "rounding": self.rounding, "overflow": self.overflow,
            "random_bits": self.random_bits,
        }  # fmt: skip

    def params(self, results: int, terms: int) -> dict[str, Any]:
        """Parameters of a kernel that makes so many results of so many terms each, with random words of their own."""
        key = counter = 0
        if self.rounding == "stochastic":
            words = BLOCK * results * spec.blocks(terms, self.chunk)
            key, counter = generator_or_default("Accumulate", self.generator).reserve(words)
        return {**self._rule(), "key": key, "counter": counter}


def accumulator(name: str, given: Any) -> Accumulate:
    """What an `accumulate=` argument means. FormatError or ArgumentError for what is none."""
    if isinstance(given, Accumulate):
        return given
    if not isinstance(given, (Format, str)):
        raise ArgumentError(
            f"{name}: accumulate={given!r}: expected a float format, its name, or ulpgrad.Accumulate(format, chunk)"
        )
    return Accumulate(given)


def _floats(name: str, *tensors: Tensor) -> tuple[Any, ...]:
    """Operands as the active policy wants them for the op of that name; affine and block ones as float32, as everywhere.
    FormatError for integers and fixed point."""
    for t in tensors:
        if t.dtype.kind not in ("float", "affine", "block"):
            hint = "; fixed point: ulpgrad.fixed, with accumulator=" if t.dtype.kind == "fixed" else ""
            raise FormatError(f"{name}: accumulate= is for float operands, got {t.dtype.name}{hint}")
    return prepared(name, *[t if t.dtype.kind == "float" else astype(t, float32) for t in tensors])


def _apart(counter: int, of: int) -> int:
    return (counter + of * APART) % 2**128


def _of_a(
    g: Tensor,
    b: Tensor,
    format: Any,
    chunk: int,
    rounding: str,
    overflow: str,
    random_bits: int,
    key: int,
    counter: int,
) -> Tensor:
    other = matrix_transpose(b)
    return _same(g, other, format=format, chunk=chunk, rounding=rounding, overflow=overflow, random_bits=random_bits,
                 key=key, counter=_apart(counter, 1))  # fmt: skip


def _of_b(
    g: Tensor,
    a: Tensor,
    format: Any,
    chunk: int,
    rounding: str,
    overflow: str,
    random_bits: int,
    key: int,
    counter: int,
) -> Tensor:
    other = matrix_transpose(a)
    return _same(other, g, format=format, chunk=chunk, rounding=rounding, overflow=overflow, random_bits=random_bits,
                 key=key, counter=_apart(counter, 2))  # fmt: skip


# The products of its gradients have the same accumulator, and random words of their own.
_same: Primitive = Primitive(spec.accumulate_matmul, "a b", gradients={"a": _of_a, "b": _of_b})


@lru_cache(64)
def _with_backward(backward: Accumulate | None) -> Primitive:
    """A product whose gradients' products have another accumulator; None: those of `matmul`."""
    from ulpgrad.ops.linalg import matmul

    def multiply(a: Tensor, b: Tensor) -> Tensor:
        return matmul(a, b) if backward is None else product("matmul", a, b, backward)

    return Primitive(
        spec.accumulate_matmul,
        "a b",
        gradients={
            "a": lambda g, b: multiply(g, matrix_transpose(b)),
            "b": lambda g, a: multiply(matrix_transpose(a), g),
        },
    )


def product(name: str, a: Tensor, b: Tensor, accumulate: Any, backward: Any = None) -> Tensor:
    """a @ b for operands of two axes and more, in a chosen accumulator.

    `backward`: None for the same accumulator in the products of the gradients, False for ordinary ones, else another. The
    rows of a stack against one matrix are one long matrix, so that the matrix's gradient is one long sum; gradients of other
    operands that broadcast are summed plainly over the stack.
    """
    how = accumulator(name, accumulate)
    primitive = _same
    if backward is not None:
        primitive = _with_backward(None if backward is False else accumulator(name, backward))
    a, b = _floats(name, a, b)
    check_matmul(a, b)
    if a.ndim > 2 and b.ndim == 2:
        flat = reshape(a, (math.prod(a.shape[:-1]), a.shape[-1]))
        return reshape(product(name, flat, b, how, backward), (*a.shape[:-1], b.shape[-1]))
    stack = math.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
    return primitive(a, b, **how.params(stack * a.shape[-2] * b.shape[-1], a.shape[-1]))


def _sum_gradient(g: Tensor, x_shape: Shape, axis: Shape) -> Tensor:
    kept = tuple(1 if i in axis else s for i, s in enumerate(x_shape))
    return broadcast_to(reshape(g, kept), x_shape)


def _cumulative_gradient(g: Tensor, axis: int) -> Tensor:
    from ulpgrad.ops.reduction import cumulative_sum

    return flip(cumulative_sum(flip(g, axis=axis), axis=axis), axis=axis)


_sum: Primitive = Primitive(spec.accumulate_sum, "x", gradients={"x": _sum_gradient})
_cumulative: Primitive = Primitive(spec.accumulate_cumulative_sum, "x", gradients={"x": _cumulative_gradient})


def total(name: str, x: Tensor, axis: Shape, keepdims: bool, accumulate: Any) -> Tensor:
    """The sum over axes in a chosen accumulator; several axes in C order. Its gradient is that of a plain sum."""
    how = accumulator(name, accumulate)
    (x,) = _floats(name, x)
    terms = math.prod(x.shape[i] for i in axis)
    results = math.prod(s for i, s in enumerate(x.shape) if i not in axis)
    return _sum(x, axis=axis, keepdims=keepdims, **how.params(results, terms))


def running(name: str, x: Tensor, axis: int, accumulate: Any) -> Tensor:
    """Running sums along an axis in a chosen accumulator. Its gradient is that of plain ones."""
    how = accumulator(name, accumulate)
    (x,) = _floats(name, x)
    results = math.prod(s for i, s in enumerate(x.shape) if i != axis)
    return _cumulative(x, axis=axis, **how.params(results, x.shape[axis]))
