"""Any accumulator, step by step of k as the definition has it: a program keeps a tile of accumulators in registers, multiplies a
column of A by a row of B, and rounds and limits what each chunk of products comes to.

Next limit: ordinary 64-bit arithmetic, one product at a time; each value is loaded again for every tile.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.kernels import gpu
from ulpgrad.kernels.fixed.triton_cut import limited, rounded
from ulpgrad.kernels.integer import spec
from ulpgrad.kernels.integer.accumulator import INT32, INT64, Accumulator, as_accumulator
from ulpgrad.kernels.matmul import triton_operands as operands
from ulpgrad.kernels.matmul.triton_grouped import tile_of
from ulpgrad.kernels.matmul.triton_multiply_add import launch_tiles
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import tl, triton


@triton.jit
def multiply(
    out, first, a, b, low, high, m, n, k, inner, stride_a0, stride_a1, stride_am, stride_ak,
    stride_b0, stride_b1, stride_bk, stride_bn, chunk,
    SHIFT: tl.constexpr, ROUNDING: tl.constexpr, WRAP: tl.constexpr, INDEX: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    rows, columns, from_a, from_b, matrix = tile_of(
        m, n, inner, stride_a0, stride_a1, stride_b0, stride_b1, INDEX, GROUP, BLOCK_M, BLOCK_N
    )  # fmt: skip
    a += from_a + rows * stride_am
    b += from_b + columns * stride_bn
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.int64)
    bad = tl.full((BLOCK_M, BLOCK_N), -1, tl.int64)  # where the first chunk that does not fit begins
    for start in range(0, k, chunk):
        more = tl.zeros((BLOCK_M, BLOCK_N), tl.int64)
        for step in range(start, tl.minimum(start + chunk, k)):
            at = tl.full((1, 1), step, tl.int64)
            left = tl.load(a + at * stride_ak, rows < m, 0)
            right = tl.load(b + at * stride_bk, columns < n, 0)
            more += (left.to(tl.int32) * right.to(tl.int32)).to(tl.int64)
        more = rounded(more, SHIFT, ROUNDING)
        if first is not None:
            exceeds = (more < low) | (more > high)
            whole = total + limited(more, low, high, WRAP)
            exceeds = exceeds | (whole < low) | (whole > high)
            bad = tl.where((bad < 0) & exceeds, start, bad)
        total = limited(total + limited(more, low, high, WRAP), low, high, WRAP)
    place_out, inside = matrix * m * n + rows.to(tl.int64) * n + columns, (rows < m) & (columns < n)
    tl.store(out + place_out, total.to(out.dtype.element_ty), inside)
    if first is not None:
        tl.store(first + place_out, bad, inside)


def run(product: operands.Product, chosen: Accumulator) -> Any:
    """The product, each chunk rounded and limited as the accumulator says."""
    out = product.result()
    first = gpu.xp().empty(out.shape, np.int64) if chosen.overflow == "raise" else None
    launch_tiles(
        multiply, product, (out, first, product.a, product.b, chosen.low, chosen.high),
        (min(chosen.chunk, max(1, product.k)),), SHIFT=chosen.shift, ROUNDING=chosen.rounding,
        WRAP=chosen.overflow == "wrap",
    )  # fmt: skip
    if first is not None and (first >= 0).any():
        at = tuple(int(i) for i in gpu.xp().argwhere(first >= 0)[0])
        raise spec.overflowed("integer_matmul", chosen, at, int(first[at]))
    return out


def by(multiplied: Callable[[operands.Product, Accumulator], Any], request: Request) -> Any:
    """integer_matmul as a rung whose products that function makes."""
    form = request.formats[0]
    assert form is not None

    def call(a: Array, b: Array, *, accumulator: Any = None) -> Any:
        chosen = as_accumulator(accumulator)
        return multiplied(operands.folded(a, b, form, spec.result_format(chosen)), chosen)

    return call


def _refusal(request: Request) -> str | None:
    a, b = request.arrays
    chosen = as_accumulator(request.params.get("accumulator"))
    if chosen in (INT32, INT64) or spec.fits_int64(chosen, a.shape[-1], a.dtype, b.dtype):
        return None
    return f"64 bits do not hold every step of {chosen}"


@kernel(spec.integer_matmul, "cuda/triton-steps", rank=40, formats=spec.FORMATS, where=_refusal, build=True)
def integer_matmul(request: Request) -> Any:
    return by(run, request)
