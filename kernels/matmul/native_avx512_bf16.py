"""VDPBF16PS: two products of bfloat16 a lane and step, summed in float32: half the instructions of the rung below. Panels
hold neighbours along k side by side.

The instruction takes subnormal numbers for zeros, in and out: panels that hold a value below 2^-56 are multiplied by
ordinary FMAs instead, so that results keep to the same tolerance. Next limit: the units of this instruction.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ulpgrad.formats import bfloat16
from ulpgrad.kernels import native
from ulpgrad.kernels.matmul import native_call, spec
from ulpgrad.kernels.registry import Request, kernel

FORMATS = (bfloat16,)


@kernel(spec.matmul, "cpu/native-avx512-bf16", rank=90, formats=FORMATS, requires=("native", "avx512_bf16"), build=True)
def matmul(request: Request) -> Any:
    return native.module().matmul_by("avx512", True)


@kernel(spec.linear, "cpu/native-avx512-bf16", rank=90, formats=FORMATS, requires=("native", "avx512_bf16"), build=True)
def linear(request: Request) -> Any:
    return partial(native_call.linear, "avx512", True)
