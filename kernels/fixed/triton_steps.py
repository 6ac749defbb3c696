"""Exact sums in 64 bits, step by step of k, and the cut while they are in registers: codes of any integer format.

Next limit: 64-bit products one by one, on units that have no instruction for them.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import INTEGERS, Array, Format
from ulpgrad.kernels import gpu
from ulpgrad.kernels.fixed import spec
from ulpgrad.kernels.fixed.cut import Cut
from ulpgrad.kernels.fixed.triton_cut import limited, rounded
from ulpgrad.kernels.matmul import triton_operands as operands
from ulpgrad.kernels.matmul.triton_grouped import tile_of
from ulpgrad.kernels.matmul.triton_multiply_add import launch_tiles, step_sums
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import tl, triton


@triton.jit
def store_cut(
    out, outside, sums, words, low, high, m, n, rows, columns, matrix, DROP: tl.constexpr, ROUNDING: tl.constexpr,
    RANDOM_BITS: tl.constexpr, WRAP: tl.constexpr,
):  # fmt: skip
    """A tile of exact sums as codes."""
    at, inside = matrix * m * n + rows.to(tl.int64) * n + columns, (rows < m) & (columns < n)
    if words is not None:
        drawn = tl.load(words + at, inside, 0)
    else:
        drawn = None
    value = rounded(sums.to(tl.int64), DROP, ROUNDING, RANDOM_BITS, drawn)
    if outside is not None:
        tl.store(outside + at, (value < low) | (value > high), inside)
    tl.store(out + at, limited(value, low, high, WRAP).to(out.dtype.element_ty), inside)


@triton.jit
def multiply(
    out, outside, words, low, high, a, b, m, n, k, inner, stride_a0, stride_a1, stride_am, stride_ak,
    stride_b0, stride_b1, stride_bk, stride_bn,
    DROP: tl.constexpr, ROUNDING: tl.constexpr, RANDOM_BITS: tl.constexpr, WRAP: tl.constexpr, INDEX: tl.constexpr,
    GROUP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    rows, columns, from_a, from_b, matrix = tile_of(
        m, n, inner, stride_a0, stride_a1, stride_b0, stride_b1, INDEX, GROUP, BLOCK_M, BLOCK_N
    )  # fmt: skip
    sums = step_sums(
        a + from_a, b + from_b, rows, columns, m, n, k, stride_am, stride_ak, stride_bk, stride_bn, tl.int64,
        BLOCK_M, BLOCK_N,
    )  # fmt: skip
    store_cut(out, outside, sums, words, low, high, m, n, rows, columns, matrix, DROP, ROUNDING, RANDOM_BITS, WRAP)


def product_of(a: Array, b: Array, cut: Cut, form: Format) -> operands.Product:
    """a @ b with a result of the cut's codes."""
    return operands.folded(a, b, form, cut.out)


def ends(product: operands.Product, words: Any, cut: Cut) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """The kernels' leading arguments and their constexprs, and what the op returns."""
    out = product.result()
    outside = gpu.xp().empty(out.shape, np.bool_) if cut.report else None
    drawn = None if words is None or cut.rounding != "stochastic" else gpu.contiguous(words)
    how = {"DROP": cut.drop, "ROUNDING": cut.rounding, "RANDOM_BITS": cut.random_bits, "WRAP": cut.wrap}
    return (out, outside, drawn, cut.low, cut.high), how, out if outside is None else (out, outside)


def refusal(request: Request) -> str | None:
    """Why int64 does not hold what a call meets, or None."""
    return None if request.params["cut"].width in (32, 64) else "takes calls whose intermediate values fit 64 bits"


@kernel(spec.matmul, "cuda/triton-steps", rank=40, formats=INTEGERS, where=refusal, build=True)
def matmul(request: Request) -> Any:
    form = request.formats[0]
    assert form is not None

    def call(a: Array, b: Array, words: Array | None, *, cut: Cut) -> Any:
        product = product_of(a, b, cut, form)
        before, how, result = ends(product, words, cut)
        launch_tiles(multiply, product, (*before, product.a, product.b), **how)
        return result

    return call
