"""A small result of long sums has too few tiles for the multiprocessors: k is split into parts, each a product of its own into
float32, and a second kernel adds the parts up, always in the same order, and finishes the results.

Next limit: the parts are written to memory and read again, which a cluster of programs could exchange on the chip.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ulpgrad.formats import bfloat16, float16, float32
from ulpgrad.kernels.matmul import spec, triton_grouped, triton_operands as operands
from ulpgrad.kernels.matmul.strided import Facts, of_layer, of_product, parts_of, strides
from ulpgrad.kernels.matmul.triton_epilogue import write
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

FORMATS = (float16, bfloat16, float32)
ROWS, COLUMNS = 8, 64


@triton.jit
def add_parts(
    out, parts, scale, bias, residual, factor, k0, k1, c0, c1, c2, c3, m, n, count, stride_rm, stride_rn,
    ACTIVATION: tl.constexpr, FACTOR: tl.constexpr, EXPONENT_BITS: tl.constexpr, GRID: tl.constexpr, BITS: tl.constexpr,
    WORDS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(n, COLUMNS)
    rows = (tl.program_id(0) // across * ROWS + tl.arange(0, ROWS))[:, None]
    columns = (tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    inside = (rows < m) & (columns < n)
    sums = tl.zeros((ROWS, COLUMNS), tl.float32)
    at = parts + rows.to(tl.int64) * n + columns
    for _ in range(count):
        sums += tl.load(at, inside, 0.0)
        at += m * n
    write(
        out, sums, rows, columns, 0, m, n, scale, bias, residual, factor, k0, k1, c0, c1, c2, c3,
        stride_rm, stride_rn, ACTIVATION, FACTOR, EXPONENT_BITS, GRID, BITS, WORDS,
    )  # fmt: skip


def run(product: operands.Product) -> Any:
    """The parts of k as a stack of products, and their sum."""
    m, n = product.m, product.n
    count = parts_of(m, n, product.k)
    a = product.a.reshape(m, count, product.k // count).transpose(1, 0, 2)
    b = product.b.reshape(count, product.k // count, n)
    stack = replace(
        product, a=a, b=b, shape=(count, m, n), out_form=float32, outer=count,
        a_steps=(strides(a)[0], 0), b_steps=(strides(b)[0], 0), end=operands.End(), drawn=None,
    )  # fmt: skip
    parts, out = triton_grouped.run(stack), product.result()
    launch(
        add_parts, (cdiv(m, ROWS) * cdiv(n, COLUMNS),), product.shown(out), parts, *product.ends(), m, n, count,
        *product.residual_strides(), **product.constants(), ROWS=ROWS, COLUMNS=COLUMNS, num_warps=4,
    )  # fmt: skip
    return out


def refusal(facts: Facts | None) -> str | None:
    """Why this rung does not take a call."""
    return None if facts is not None and facts.parts > 1 else "takes few results of long sums, in whole blocks of k"


@kernel(
    spec.matmul, "cuda/triton-split", rank=62, formats=FORMATS, build=True,
    where=lambda request: refusal(of_product(*request.arrays)),
)  # fmt: skip
def matmul(request: Request) -> Any:
    return operands.matmul_by(run, request)


@kernel(
    spec.linear, "cuda/triton-split", rank=62, formats=FORMATS, build=True,
    where=lambda request: refusal(of_layer(*request.arrays)),
)  # fmt: skip
def linear(request: Request) -> Any:
    return operands.linear_by(run, request)


@kernel(
    spec.matmul_stochastic, "cuda/triton-split", rank=62, formats=FORMATS, build=True,
    where=lambda request: refusal(of_product(*request.arrays)) or operands.stochastic_refusal(request),
)  # fmt: skip
def matmul_stochastic(request: Request) -> Any:
    return operands.stochastic_matmul_by(run, request)


@kernel(
    spec.linear_stochastic, "cuda/triton-split", rank=62, formats=FORMATS, build=True,
    where=lambda request: refusal(of_layer(*request.arrays)) or operands.stochastic_refusal(request),
)  # fmt: skip
def linear_stochastic(request: Request) -> Any:
    return operands.stochastic_linear_by(run, request)
