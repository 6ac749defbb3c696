"""One dot for each block along k: its elements are multiplied on the matrix units into a sum that begins at zero, to which both
scales are applied in float32 before it is added to the tile's. As float16, which has every 8-bit float, products and sums are
exact to float32; the units for 8-bit floats are twice as fast and sum in about 14 bits, enough for a result of 16.

Next limit: for 32 products a result takes two instructions of the ordinary units, half of the rate of the 8-bit ones at best, and
the units wait for each sum; operands are not moved by the tensor memory accelerator.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Block, Format, float32, int8, uint8
from ulpgrad.kernels import gpu
from ulpgrad.kernels.blocks import spec
from ulpgrad.kernels.blocks.triton_operands import as_float16, exponent_bits, folded, power, refusal
from ulpgrad.kernels.matmul import triton_configs as configs
from ulpgrad.kernels.matmul.triton_grouped import tile_of
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton, typed


@triton.jit
def multiply_blocks(
    out, a, b, a_scales, b_scales, m, n, k, inner, stride_a0, stride_a1, stride_am, stride_ak, stride_b0, stride_b1, stride_bk,
    stride_bn, scales_inner, scale_a0, scale_a1, scale_am, scale_ak, scale_b0, scale_b1, scale_bk, scale_bn,
    WIDEN: tl.constexpr, A_BITS: tl.constexpr, B_BITS: tl.constexpr, INDEX: tl.constexpr, WHOLE_K: tl.constexpr,
    GROUP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    rows, columns, start_a, start_b, matrix = tile_of(
        m, n, inner, stride_a0, stride_a1, stride_b0, stride_b1, INDEX, GROUP, BLOCK_M, BLOCK_N
    )  # fmt: skip
    steps = tl.arange(0, BLOCK_K).to(INDEX)
    from_a = a + start_a + rows * stride_am + steps[None, :] * stride_ak
    from_b = b + start_b + steps[:, None] * stride_bk + columns * stride_bn
    down = a_scales + (matrix // scales_inner) * scale_a0 + (matrix % scales_inner) * scale_a1 + rows * scale_am
    across = b_scales + (matrix // scales_inner) * scale_b0 + (matrix % scales_inner) * scale_b1 + columns * scale_bn
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    nothing: tl.constexpr = 0 if WIDEN else 0.0
    for start in range(0, k, BLOCK_K):
        if WHOLE_K:
            left = tl.load(from_a, rows < m, nothing)
            right = tl.load(from_b, columns < n, nothing)
        else:
            left = tl.load(from_a, (rows < m) & (start + steps[None, :] < k), nothing)
            right = tl.load(from_b, (columns < n) & (start + steps[:, None] < k), nothing)
        if WIDEN:
            left, right = as_float16(left, A_BITS), as_float16(right, B_BITS)
        by_row, by_column = power(tl.load(down, rows < m, 127)), power(tl.load(across, columns < n, 127))
        sums += tl.dot(left, right, out_dtype=tl.float32) * by_row * by_column
        from_a += BLOCK_K * stride_ak
        from_b += BLOCK_K * stride_bk
        down += scale_ak
        across += scale_bk
    place = matrix * m * n + rows.to(tl.int64) * n + columns
    tl.store(out + place, sums.to(out.dtype.element_ty), (rows < m) & (columns < n))


def run(
    a: Any, a_scales: Any, b: Any, b_scales: Any, *, a_format: Block, b_format: Block, dtype: Format = float32,
    widen: bool = True,
) -> Any:  # fmt: skip
    """The whole product, a program a tile."""
    product, scales = folded(a, a_scales, b, b_scales, dtype)
    out, forms = product.result(), (a_format.element, b_format.element)
    config = configs.choose(product.question("triton-blocks", "blocks" if widen else "blocks, float8"))
    codes = [x if widen else typed(x, form) for x, form in zip((product.a, product.b), forms, strict=True)]
    tiles = product.count * cdiv(product.m, config.m) * cdiv(product.n, config.n)
    launch(
        multiply_blocks, (tiles if out.size else 0,), typed(out, dtype), *codes, scales.a, scales.b, *product.places(),
        *scales.places()[3:], WIDEN=widen, A_BITS=exponent_bits(a_format), B_BITS=exponent_bits(b_format), INDEX=product.index,
        WHOLE_K=product.k % a_format.size == 0, GROUP=config.group, **config.blocks | {"BLOCK_K": a_format.size},
    )  # fmt: skip
    return out


def run_float8(*arrays: Any, **params: Any) -> Any:
    """By the units for 8-bit floats."""
    return run(*arrays, **params, widen=False)


def _units(request: Request) -> str | None:
    if gpu.capability() < 89:
        return f"multiplies 8-bit floats from sm_89 on; this is sm_{gpu.capability()}"
    if request.params.get("dtype", float32) is float32:
        return "sums in fewer bits than a float32 result has"
    return refusal(request)


FLOAT8 = "The rung below its neighbours with elements as they are, on the units for 8-bit floats: results of 16 bits."

kernel(spec.block_matmul, "cuda/triton-blocks", rank=50, formats=(uint8, int8), where=refusal)(run)
kernel(spec.block_matmul, "cuda/triton-blocks-float8", rank=60, formats=(uint8, int8), where=_units, idea=FLOAT8)(
    run_float8
)
