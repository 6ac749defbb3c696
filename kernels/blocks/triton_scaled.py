"""Units that take the scales themselves (sm_100): one dot multiplies elements and shared powers of two.

Next limit: operands are copied by every warp; the tensor memory accelerator would move them, and scales want a layout of their
own.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Block, Format, float32, int8, uint8
from ulpgrad.kernels import gpu
from ulpgrad.kernels.blocks import spec
from ulpgrad.kernels.blocks.triton_operands import exponent_bits, folded, refusal
from ulpgrad.kernels.matmul import triton_configs as configs
from ulpgrad.kernels.matmul.triton_grouped import tile_of
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton, typed

NAMES = {4: "e4m3", 5: "e5m2"}


@triton.jit
def multiply_scaled(
    out, a, b, a_scales, b_scales, m, n, k, inner, stride_a0, stride_a1, stride_am, stride_ak, stride_b0, stride_b1, stride_bk,
    stride_bn, scales_inner, scale_a0, scale_a1, scale_am, scale_ak, scale_b0, scale_b1, scale_bk, scale_bn,
    A_NAME: tl.constexpr, B_NAME: tl.constexpr, INDEX: tl.constexpr, GROUP: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    rows, columns, start_a, start_b, matrix = tile_of(
        m, n, inner, stride_a0, stride_a1, stride_b0, stride_b1, INDEX, GROUP, BLOCK_M, BLOCK_N
    )  # fmt: skip
    steps, blocks = tl.arange(0, BLOCK_K).to(INDEX), tl.arange(0, BLOCK_K // 32).to(INDEX)
    count = tl.cdiv(k, 32)
    turned = columns.reshape(BLOCK_N, 1)
    from_a = a + start_a + rows * stride_am + steps[None, :] * stride_ak
    from_b = b + start_b + steps[:, None] * stride_bk + columns * stride_bn
    down = a_scales + (matrix // scales_inner) * scale_a0 + (matrix % scales_inner) * scale_a1
    across = b_scales + (matrix // scales_inner) * scale_b0 + (matrix % scales_inner) * scale_b1
    down += rows * scale_am + blocks[None, :] * scale_ak
    across += turned * scale_bn + blocks[None, :] * scale_bk
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, k, BLOCK_K):
        left = tl.load(from_a, (rows < m) & (start + steps[None, :] < k), 0)
        right = tl.load(from_b, (columns < n) & (start + steps[:, None] < k), 0)
        there = start // 32 + blocks[None, :] < count
        by_row = tl.load(down, (rows < m) & there, 127)
        by_column = tl.load(across, (turned < n) & there, 127)
        sums = tl.dot_scaled(left, by_row, A_NAME, right, by_column, B_NAME, sums)
        from_a += BLOCK_K * stride_ak
        from_b += BLOCK_K * stride_bk
        down += BLOCK_K // 32 * scale_ak
        across += BLOCK_K // 32 * scale_bk
    place = matrix * m * n + rows.to(tl.int64) * n + columns
    tl.store(out + place, sums.to(out.dtype.element_ty), (rows < m) & (columns < n))


def run(
    a: Any, a_scales: Any, b: Any, b_scales: Any, *, a_format: Block, b_format: Block, dtype: Format = float32
) -> Any:
    """The whole product, a program a tile."""
    product, scales = folded(a, a_scales, b, b_scales, dtype)
    out = product.result()
    config = configs.choose(product.question("triton-scaled", "blocks, scaled"))
    tiles = product.count * cdiv(product.m, config.m) * cdiv(product.n, config.n)
    launch(
        multiply_scaled, (tiles if out.size else 0,), typed(out, dtype), product.a, product.b, scales.a, scales.b,
        *product.places(), *scales.places()[3:], A_NAME=NAMES[exponent_bits(a_format)],
        B_NAME=NAMES[exponent_bits(b_format)], INDEX=product.index, GROUP=config.group, **config.blocks,
    )  # fmt: skip
    return out


def _units(request: Request) -> str | None:
    if gpu.generation() < 100:
        return f"multiplies scales on the units of sm_100; this is sm_{gpu.capability()}"
    if any(request.params[name].size != 32 for name in ("a_format", "b_format")):
        return "takes blocks of 32 elements"
    return refusal(request)


kernel(spec.block_matmul, "cuda/triton-scaled", rank=70, formats=(uint8, int8), where=_units)(run)
