"""One program computes one tile of the result: along k it loads a block of A and a block of B, multiplies them on the matrix
units and adds to sums that stay in registers. float32 is multiplied exactly, by the ordinary units.

Next limit: loads wait for each other, and programs that run at the same time read different parts of A and B: little is found in
the L2 cache.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.formats import bfloat16, float16, float32, float64
from ulpgrad.kernels.matmul import spec, triton_configs as configs, triton_operands as operands
from ulpgrad.kernels.matmul.triton_epilogue import write
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

FORMATS = (float16, bfloat16, float32, float64)
NARROW = FORMATS[:3]  # whose products are summed in float32


@triton.jit
def multiply(
    out, a, b, scale, bias, residual, factor, k0, k1, c0, c1, c2, c3, m, n, k, inner, stride_a0, stride_a1,
    stride_am, stride_ak, stride_b0, stride_b1, stride_bk, stride_bn, stride_rm, stride_rn,
    ACTIVATION: tl.constexpr, FACTOR: tl.constexpr, EXPONENT_BITS: tl.constexpr, GRID: tl.constexpr, BITS: tl.constexpr,
    WORDS: tl.constexpr, INDEX: tl.constexpr, SUM: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(n, BLOCK_N)
    tiles = tl.cdiv(m, BLOCK_M) * across
    tile, matrix = tl.program_id(0) % tiles, (tl.program_id(0) // tiles).to(tl.int64)
    rows = ((tile // across) * BLOCK_M + tl.arange(0, BLOCK_M)).to(INDEX)[:, None]
    columns = ((tile % across) * BLOCK_N + tl.arange(0, BLOCK_N)).to(INDEX)[None, :]
    a += (matrix // inner) * stride_a0 + (matrix % inner) * stride_a1
    b += (matrix // inner) * stride_b0 + (matrix % inner) * stride_b1
    sums = tl.zeros((BLOCK_M, BLOCK_N), SUM)
    for start in range(0, k, BLOCK_K):
        steps = (start + tl.arange(0, BLOCK_K)).to(INDEX)
        down, along = steps[:, None], steps[None, :]
        left = tl.load(a + rows * stride_am + along * stride_ak, (rows < m) & (along < k), 0)
        right = tl.load(b + down * stride_bk + columns * stride_bn, (down < k) & (columns < n), 0)
        sums = tl.dot(left, right, sums, input_precision="ieee", out_dtype=SUM)
    write(
        out, sums, rows, columns, matrix * m * n, m, n, scale, bias, residual, factor, k0, k1, c0, c1, c2, c3,
        stride_rm, stride_rn, ACTIVATION, FACTOR, EXPONENT_BITS, GRID, BITS, WORDS,
    )  # fmt: skip


def run(product: operands.Product) -> Any:
    """The whole product, a program a tile."""
    out = product.result()
    name = "ieee" if product.form is float32 else configs.kind(product.form)
    config = configs.choose(product.question("triton-plain", name))
    tiles = cdiv(product.m, config.m) * cdiv(product.n, config.n)
    launch(
        multiply, (product.count * tiles if out.size else 0,), *product.arguments(out), **product.constants(),
        INDEX=product.index, SUM=operands.sum_type(product.form),
        **{**config.blocks, "num_stages": 1},
    )  # fmt: skip
    return out


@kernel(spec.matmul, "cuda/triton-plain", rank=40, formats=FORMATS, build=True, replays=True)
def matmul(request: Request) -> Any:
    return operands.matmul_by(run, request)


@kernel(spec.linear, "cuda/triton-plain", rank=40, formats=FORMATS, build=True, replays=True)
def linear(request: Request) -> Any:
    return operands.linear_by(run, request)


@kernel(
    spec.matmul_stochastic, "cuda/triton-plain", rank=40, formats=NARROW, where=operands.stochastic_refusal, build=True
)
def matmul_stochastic(request: Request) -> Any:
    return operands.stochastic_matmul_by(run, request)


@kernel(
    spec.linear_stochastic, "cuda/triton-plain", rank=40, formats=NARROW, where=operands.stochastic_refusal, build=True
)
def linear_stochastic(request: Request) -> Any:
    return operands.stochastic_linear_by(run, request)
