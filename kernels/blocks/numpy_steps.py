"""Values of both operands in float32, then the machine's best product. Next limit: values take four times the memory of codes,
and no unit of a CPU multiplies 8-bit floats.
"""

from __future__ import annotations

from ulpgrad.formats import Array, Block, Format, as_format, float32, int8, uint8
from ulpgrad.kernels.blocks import spec
from ulpgrad.kernels.cast import convert
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.steps import best


def decoded(codes: Array, scales: Array, form: Block, axis: int) -> Array:
    """The values, by the highest rung that decodes blocks."""
    formats, how = (as_format(codes.dtype), uint8), {"dtype": form, "axis": axis}
    out: Array = best("block_dequantize", formats, codes, scales, **how)(codes, scales, **how)
    return out


@kernel(spec.block_matmul, "cpu/numpy-steps", rank=20, formats=(uint8, int8))
def block_matmul(
    a: Array, a_scales: Array, b: Array, b_scales: Array, *, a_format: Block, b_format: Block, dtype: Format = float32
) -> Array:
    x, y = decoded(a, a_scales, a_format, -1), decoded(b, b_scales, b_format, -2)
    product: Array = best("matmul", float32, x, y)(x, y)
    return product if dtype is float32 else convert(product, float32, dtype)
