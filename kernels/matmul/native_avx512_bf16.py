"""VDPBF16PS: two products of bfloat16 a lane and step, summed in float32: half the instructions of the rung below. Panels
hold neighbours along k side by side.

The instruction takes subnormal numbers for zeros, in and out: panels that hold a value below 2^-56 are multiplied by
ordinary FMAs instead, so that results keep to the same tolerance. Next limit: the units of this instruction.
"""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, bfloat16
from ulpgrad.kernels import native
from ulpgrad.kernels.matmul import native_call, spec
from ulpgrad.kernels.registry import Request, kernel

FORMATS = (bfloat16,)


@kernel(spec.matmul, "cpu/native-avx512-bf16", rank=90, formats=FORMATS, requires=("native", "avx512_bf16"), build=True)
def matmul(request: Request) -> Any:
    return native.module().matmul_by("avx512", True)


@kernel(spec.linear, "cpu/native-avx512-bf16", rank=90, formats=FORMATS, requires=("native", "avx512_bf16"))
def linear(
    x: Array,
    weight: Array,
    bias: Array | None,
    scale: Array | None = None,
    residual: Array | None = None,
    **finish: Any,
) -> Array:
    return native_call.linear("avx512", True, x, weight, bias, scale, residual, **finish)
