"""Whole numbers on the ordinary units, which have all widths: a program keeps a tile of sums in registers, and at each step of k
adds a column of A times a row of B to it, so that a value loaded serves a whole row or column of the tile. Sums wrap, as all
integer arithmetic here does.

Next limit: no unit multiplies words as fast as bytes.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.formats import INTEGERS
from ulpgrad.kernels.matmul import spec, triton_configs as configs, triton_operands as operands
from ulpgrad.kernels.matmul.triton_grouped import tile_of
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton


@triton.jit
def step_sums(
    a, b, rows, columns, m, n, k, stride_am, stride_ak, stride_bk, stride_bn, SUM: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """A tile of a @ b for integers of any kind, each product and sum in SUM."""
    a += rows * stride_am
    b += columns * stride_bn
    sums = tl.zeros((BLOCK_M, BLOCK_N), SUM)
    for step in range(k):
        at = tl.full((1, 1), step, tl.int64)
        left = tl.load(a + at * stride_ak, rows < m, 0)
        right = tl.load(b + at * stride_bk, columns < n, 0)
        sums += left.to(SUM) * right.to(SUM)
    return sums


@triton.jit
def multiply_add(
    out, a, b, m, n, k, inner, stride_a0, stride_a1, stride_am, stride_ak, stride_b0, stride_b1, stride_bk, stride_bn,
    INDEX: tl.constexpr, GROUP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    rows, columns, from_a, from_b, matrix = tile_of(
        m, n, inner, stride_a0, stride_a1, stride_b0, stride_b1, INDEX, GROUP, BLOCK_M, BLOCK_N
    )  # fmt: skip
    sums = step_sums(
        a + from_a, b + from_b, rows, columns, m, n, k, stride_am, stride_ak, stride_bk, stride_bn, out.dtype.element_ty,
        BLOCK_M, BLOCK_N,
    )  # fmt: skip
    tl.store(out + matrix * m * n + rows.to(tl.int64) * n + columns, sums, (rows < m) & (columns < n))


def launch_tiles(kernel: Any, product: operands.Product, before: Any, after: Any = (), **constants: Any) -> None:
    """Launch a kernel of sums step by step: `before`, m, n, k, steps and strides, `after`; and the sizes of its tiles."""
    config = configs.choose(product.question("triton-multiply-add", "integer"))
    tiles = product.count * cdiv(product.m, config.m) * cdiv(product.n, config.n)
    launch(
        kernel, (tiles,), *before, *product.places(), *after, INDEX=product.index, GROUP=config.group, BLOCK_M=config.m,
        BLOCK_N=config.n, num_warps=config.warps, **constants,
    )  # fmt: skip


def run(product: operands.Product) -> Any:
    """The whole product, a program a tile."""
    out = product.result()
    launch_tiles(multiply_add, product, (out, product.a, product.b))
    return out


@kernel(spec.matmul, "cuda/triton-multiply-add", rank=40, formats=INTEGERS, build=True, replays=True)
def matmul(request: Request) -> Any:
    return operands.matmul_by(run, request)
