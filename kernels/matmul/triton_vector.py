"""A matrix times a vector: the matrix is read once, and that is all the time there is, so no matrix unit takes part. A program
takes a few results; products are added where they arise, and lanes are summed once, after all of k. What runs along memory, k or
the results, is what the lanes of a warp are spread over.

Next limit: a short result has few programs; k would have to be split among them.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.formats import INTEGERS, bfloat16, float16, float32, float64
from ulpgrad.kernels.matmul import spec, triton_operands as operands
from ulpgrad.kernels.matmul.strided import of_layer, of_product, strides
from ulpgrad.kernels.matmul.triton_epilogue import write
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

FORMATS = (float16, bfloat16, float32, float64)
NARROW = FORMATS[:3]  # whose products are summed in float32
ALONG_K, ALONG_RESULTS = (4, 512), (64, 64)  # results and steps of k in a block, by what is contiguous


@triton.jit
def multiply(
    out, a, b, scale, bias, residual, factor, k0, k1, c0, c1, c2, c3, m, n, k, inner, stride_a0, stride_a1,
    stride_am, stride_ak, stride_b0, stride_b1, stride_bk, stride_bn, stride_rm, stride_rn,
    ACTIVATION: tl.constexpr, FACTOR: tl.constexpr, EXPONENT_BITS: tl.constexpr, GRID: tl.constexpr, BITS: tl.constexpr,
    WORDS: tl.constexpr, INDEX: tl.constexpr, SUM: tl.constexpr,
    ONE_ROW: tl.constexpr, RESULTS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    count = n if ONE_ROW else m
    programs = tl.cdiv(count, RESULTS)
    matrix = (tl.program_id(0) // programs).to(tl.int64)
    results = ((tl.program_id(0) % programs) * RESULTS + tl.arange(0, RESULTS)).to(INDEX)
    a += (matrix // inner) * stride_a0 + (matrix % inner) * stride_a1
    b += (matrix // inner) * stride_b0 + (matrix % inner) * stride_b1
    sums = tl.zeros((RESULTS, STEPS), SUM)
    for start in range(0, k, STEPS):
        steps = (start + tl.arange(0, STEPS)).to(INDEX)[None, :]
        inside = (results[:, None] < count) & (steps < k)
        if ONE_ROW:
            vector = tl.load(a + steps * stride_ak, steps < k, 0)
            block = tl.load(b + steps * stride_bk + results[:, None] * stride_bn, inside, 0)
        else:
            vector = tl.load(b + steps * stride_bk, steps < k, 0)
            block = tl.load(a + results[:, None] * stride_am + steps * stride_ak, inside, 0)
        sums += block.to(SUM) * vector.to(SUM)
    total = tl.sum(sums, axis=1).to(SUM)
    zero = tl.zeros((1, 1), INDEX)
    if ONE_ROW:
        rows, columns, total = zero, results[None, :], total[None, :]
    else:
        rows, columns, total = results[:, None], zero, total[:, None]
    write(
        out, total, rows, columns, matrix * m * n, m, n, scale, bias, residual, factor, k0, k1, c0, c1, c2, c3,
        stride_rm, stride_rn, ACTIVATION, FACTOR, EXPONENT_BITS, GRID, BITS, WORDS,
    )  # fmt: skip


def run(product: operands.Product) -> Any:
    """A product with one row or one column."""
    out, one_row = product.result(), product.m == 1
    count = product.n if one_row else product.m
    step = strides(product.b)[-2] if one_row else strides(product.a)[-1]
    results, steps = ALONG_K if step == 1 else ALONG_RESULTS
    programs = product.count * cdiv(count, results) if out.size else 0
    launch(
        multiply, (programs,), *product.arguments(out), **product.constants(), INDEX=product.index,
        SUM=operands.sum_type(product.form), ONE_ROW=one_row, RESULTS=results, STEPS=steps, num_warps=4, num_stages=2,
    )  # fmt: skip
    return out


@kernel(
    spec.matmul, "cuda/triton-vector", rank=65, formats=(*FORMATS, *INTEGERS), build=True, replays=True,
    where=lambda request: refusal(of_product(*request.arrays)),
)  # fmt: skip
def matmul(request: Request) -> Any:
    return operands.matmul_by(run, request)


@kernel(
    spec.linear, "cuda/triton-vector", rank=65, formats=FORMATS, build=True, replays=True,
    where=lambda request: refusal(of_layer(*request.arrays)),
)  # fmt: skip
def linear(request: Request) -> Any:
    return operands.linear_by(run, request)


def refusal(facts: Any) -> str | None:
    """Why this rung does not take a call."""
    return None if facts is not None and facts.vector else "takes products with one row or one column"


@kernel(
    spec.matmul_stochastic, "cuda/triton-vector", rank=65, formats=NARROW, build=True,
    where=lambda request: refusal(of_product(*request.arrays)) or operands.stochastic_refusal(request),
)  # fmt: skip
def matmul_stochastic(request: Request) -> Any:
    return operands.stochastic_matmul_by(run, request)


@kernel(
    spec.linear_stochastic, "cuda/triton-vector", rank=65, formats=NARROW, build=True,
    where=lambda request: refusal(of_layer(*request.arrays)) or operands.stochastic_refusal(request),
)  # fmt: skip
def linear_stochastic(request: Request) -> Any:
    return operands.stochastic_linear_by(run, request)
