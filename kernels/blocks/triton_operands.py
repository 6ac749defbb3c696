"""What the rungs in Triton share: codes and scales of both operands, each pair folded as one product's stack of matrices."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Block, Float, Format, float8_e4m3fn, float8_e5m2, uint8
from ulpgrad.kernels import gpu
from ulpgrad.kernels.matmul import triton_operands as operands
from ulpgrad.kernels.matmul.strided import is_more_rows
from ulpgrad.kernels.registry import Request
from ulpgrad.kernels.triton_launch import tl, triton

SIZES = (32, 64, 128)  # of blocks, each multiplied by one dot


def folded(a: Any, a_scales: Any, b: Any, b_scales: Any, dtype: Format) -> tuple[operands.Product, operands.Product]:
    """Codes and scales, each as a product of stacks: rows of one are rows of the other."""
    if is_more_rows(a, b) != is_more_rows(a_scales, b_scales):
        a, a_scales = gpu.contiguous(a), gpu.contiguous(a_scales)
    return operands.folded(a, b, uint8, dtype), operands.folded(a_scales, b_scales, uint8, dtype)


def in_float8(form: Block) -> bool:
    """Whether elements are of an 8-bit float for which there is a unit, or a short way to float16."""
    return form.element in (float8_e4m3fn, float8_e5m2)


def exponent_bits(form: Block) -> int:
    """Of elements that are floats."""
    assert isinstance(form.element, Float)
    return form.element.exponent_bits


def refusal(request: Request) -> str | None:
    """Why elements are not multiplied block by block."""
    forms = request.params["a_format"], request.params["b_format"]
    if not all(in_float8(f) and f.size in SIZES for f in forms):
        return "multiplies blocks of 32, 64 or 128 elements in float8_e4m3fn or float8_e5m2"
    return None


@triton.jit
def power(scale):
    """2^s of codes of E8M0 in float32, NaN of the last one."""
    code = scale.to(tl.int32)
    bits = tl.where(code == 0, 0x00400000, tl.where(code == 255, 0x7FC00000, code << 23))
    return bits.to(tl.float32, bitcast=True)


@triton.jit
def as_float16(code, EXPONENT_BITS: tl.constexpr):
    """The values of codes of float8_e4m3fn (4) or float8_e5m2 (5), which float16 has all: by their bits, on any GPU."""
    wide = code.to(tl.uint16)
    if EXPONENT_BITS == 5:
        value = (wide << 8).to(tl.float16, bitcast=True)
    else:
        size = wide & 0x7F
        size = tl.where(size == 0x7F, 0x7E00, size << 7)
        value = (size | (wide & 0x80) << 8).to(tl.uint16).to(tl.float16, bitcast=True) * 256
    return value


__all__ = ["SIZES", "as_float16", "exponent_bits", "folded", "in_float8", "power", "refusal"]
