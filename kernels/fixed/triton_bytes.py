"""Exact sums of 8- and 16-bit codes on tensor cores (kernels/integer/triton_bytes.py), and the cut while they are in registers.

Next limit: bytes are split anew for every tile.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, int8, int16, uint8
from ulpgrad.kernels.fixed import spec
from ulpgrad.kernels.fixed.cut import Cut
from ulpgrad.kernels.fixed.triton_steps import ends, product_of, refusal, store_cut
from ulpgrad.kernels.integer.triton_bytes import byte_tile, largest, launch_tiles
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import tl, triton


@triton.jit
def multiply(
    out, outside, words, low, high, a, b, m, n, k, inner, stride_a0, stride_a1, stride_am, stride_ak,
    stride_b0, stride_b1, stride_bk, stride_bn,
    DROP: tl.constexpr, ROUNDING: tl.constexpr, RANDOM_BITS: tl.constexpr, WRAP: tl.constexpr, INDEX: tl.constexpr,
    SUM: tl.constexpr, CHUNKED: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    rows, columns, matrix, sums = byte_tile(
        a, b, m, n, k, inner, stride_a0, stride_a1, stride_am, stride_ak, stride_b0, stride_b1, stride_bk, stride_bn, INDEX, SUM,
        CHUNKED, GROUP, BLOCK_M, BLOCK_N, BLOCK_K,
    )  # fmt: skip
    store_cut(out, outside, sums, words, low, high, m, n, rows, columns, matrix, DROP, ROUNDING, RANDOM_BITS, WRAP)


@kernel(spec.matmul, "cuda/triton-bytes", rank=60, formats=(int8, uint8, int16), where=refusal, build=True)
def matmul(request: Request) -> Any:
    form = request.formats[0]
    assert form is not None

    def call(a: Array, b: Array, words: Array | None, *, cut: Cut) -> Any:
        product = product_of(a, b, cut, form)
        before, how, result = ends(product, words, cut)
        launch_tiles(multiply, product, largest(product) >= 2**31, (*before, product.a, product.b), **how)
        return result

    return call
