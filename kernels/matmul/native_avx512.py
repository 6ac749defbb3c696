"""64-byte vectors and 32 registers: a 14 x 32 tile of float32 takes 16 loads for 28 FMAs. Next limit: the FMA units; for
bfloat16, that they multiply one pair at a time."""

from __future__ import annotations

from functools import partial
from typing import Any

from ulpgrad.formats import bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.matmul import native_call, spec
from ulpgrad.kernels.registry import Request, kernel

FORMATS = (bfloat16, float16, float32, float64)


@kernel(spec.matmul, "cpu/native-avx512", rank=80, formats=FORMATS, requires=("native", "avx512"), build=True)
def matmul(request: Request) -> Any:
    return native.module().matmul_by("avx512", False)


@kernel(spec.linear, "cpu/native-avx512", rank=80, formats=FORMATS, requires=("native", "avx512"), build=True)
def linear(request: Request) -> Any:
    return partial(native_call.linear, "avx512", False)
