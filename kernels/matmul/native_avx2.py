"""32-byte vectors and fused multiply-adds: a 6 x 16 tile of float32 fills twelve of the sixteen registers. F16C widens
float16 while it is packed. Next limit: the registers; a larger tile would use each loaded value more often."""

from __future__ import annotations

from functools import partial
from typing import Any

from ulpgrad.formats import bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.matmul import native_call, spec
from ulpgrad.kernels.registry import Request, kernel

FORMATS = (bfloat16, float16, float32, float64)


@kernel(spec.matmul, "cpu/native-avx2", rank=70, formats=FORMATS, requires=("native", "avx2"), build=True)
def matmul(request: Request) -> Any:
    return native.module().matmul_by("avx2", False)


@kernel(spec.linear, "cpu/native-avx2", rank=70, formats=FORMATS, requires=("native", "avx2"), build=True)
def linear(request: Request) -> Any:
    return partial(native_call.linear, "avx2", False)
