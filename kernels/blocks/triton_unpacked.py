"""Each operand is written once as bfloat16, its scales folded into the elements, and multiplied by the highest 16-bit rung: full
pipelines and the tensor memory accelerator, with nothing to do between products. Elements of at most 8 significant bits times
2^s are exact in bfloat16 but for values below 2^-126, which round to multiples of 2^-133.

Next limit: half the rate of the 8-bit units, and operands that are written and read again in two bytes a value.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Block, Format, bfloat16, float32, int8, uint8
from ulpgrad.kernels.blocks import spec
from ulpgrad.kernels.blocks.triton_operands import in_float8
from ulpgrad.kernels.matmul import triton_grouped, triton_operands as operands, triton_persistent
from ulpgrad.kernels.matmul.strided import of_product
from ulpgrad.kernels.quantize.triton_blocks import unpacked
from ulpgrad.kernels.registry import Request, kernel


def _refusal(request: Request) -> str | None:
    forms = request.params["a_format"], request.params["b_format"]
    if not all(map(spec.is_narrow, forms)):
        return "takes elements of at most 8 significant bits"
    a, _, b, _ = request.arrays
    few = a.ndim < 2 or a.size // max(a.shape[-1], 1) < spec.MANY or b.shape[-1] < spec.MANY
    if few and all(map(in_float8, forms)):
        return f"writes operands once more, which pays from {spec.MANY} rows and columns on"
    return None


def _values(codes: Any, scales: Any, form: Block, axis: int) -> Any:
    """In bfloat16, and lying as the codes do."""
    if codes.flags.c_contiguous or codes.ndim != 2:
        return unpacked(codes, scales, form, axis, bfloat16)
    return unpacked(codes.T, scales.T, form, -3 - axis, bfloat16).T


@kernel(spec.block_matmul, "cuda/triton-unpacked", rank=55, formats=(uint8, int8), where=_refusal)
def block_matmul(
    a: Any, a_scales: Any, b: Any, b_scales: Any, *, a_format: Block, b_format: Block, dtype: Format = float32
) -> Any:
    x, y = _values(a, a_scales, a_format, -1), _values(b, b_scales, b_format, -2)
    product = operands.folded(x, y, bfloat16, dtype)
    refused = triton_persistent.refusal(of_product(x, y), dtype.storage.itemsize)
    return triton_grouped.run(product) if refused else triton_persistent.run(product)
