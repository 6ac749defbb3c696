"""Sums on tensor cores (kernels/integer/triton_bytes.py) become codes in the registers that they were made in: accumulators are
never written to memory.

Next limit: bytes of 16-bit codes are split anew for every tile.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, Format, int8
from ulpgrad.kernels.integer.triton_bytes import byte_tile, largest, launch_tiles
from ulpgrad.kernels.matmul import layout, triton_operands as operands
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.requantize import spec
from ulpgrad.kernels.requantize.triton_fused import codes
from ulpgrad.kernels.triton_launch import tl, triton


@triton.jit
def multiply(
    out, multiplier, shift, bias, a, b, m, n, k, inner, stride_a0, stride_a1, stride_am, stride_ak,
    stride_b0, stride_b1, stride_bk, stride_bn, zero_point, least, most,
    WIDE: tl.constexpr, EVEN: tl.constexpr, INDEX: tl.constexpr, SUM: tl.constexpr, CHUNKED: tl.constexpr,
    GROUP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    rows, columns, matrix, sums = byte_tile(
        a, b, m, n, k, inner, stride_a0, stride_a1, stride_am, stride_ak, stride_b0, stride_b1, stride_bk, stride_bn, INDEX, SUM,
        CHUNKED, GROUP, BLOCK_M, BLOCK_N, BLOCK_K,
    )  # fmt: skip
    total = sums.to(tl.int64 if WIDE else tl.int32)
    value = codes(total, columns, columns < n, multiplier, shift, bias, zero_point, least, most, EVEN)
    place = matrix * m * n + rows.to(tl.int64) * n + columns
    tl.store(out + place, value.to(out.dtype.element_ty), (rows < m) & (columns < n))


@kernel(spec.integer_linear, "cuda/triton-linear", rank=60, formats=spec.LINEAR_FORMATS)
def integer_linear(
    x: Array, weight: Array, multiplier: Array | None, shift: Array, bias: Array | None, *, accumulator: str,
    zero_point: int, low: int, high: int, ties: str, dtype: Format,
) -> Any:  # fmt: skip
    product = operands.Product(layout.rows(x), weight.T, int8, (*x.shape[:-1], len(weight)), dtype)
    out, wide = product.result(), accumulator == "int64"
    multiplier, shift, bias = (operands.vector(v) for v in (multiplier, shift, bias))
    launch_tiles(
        multiply, product, wide and largest(product) >= 2**31, (out, multiplier, shift, bias, product.a, product.b),
        (zero_point, low - zero_point, high - zero_point), WIDE=wide, EVEN=ties == "even",
    )  # fmt: skip
    return out
