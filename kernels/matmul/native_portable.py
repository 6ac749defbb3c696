"""Compiled for any CPU: panels are packed, and a tile of C stays in registers while k runs. 16-bit floats are widened as
they are packed, summed in float32 and rounded once. Next limit: on x86-64, 16-byte vectors and no fused multiply-add."""

from __future__ import annotations

from functools import partial
from typing import Any

from ulpgrad.formats import bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.matmul import native_call, spec
from ulpgrad.kernels.registry import Request, kernel

FORMATS = (bfloat16, float16, float32, float64)


@kernel(spec.matmul, "cpu/native-portable", rank=60, formats=FORMATS, build=True)
def matmul(request: Request) -> Any:
    return native.module().matmul_by("portable", False)


@kernel(spec.linear, "cpu/native-portable", rank=60, formats=FORMATS, build=True)
def linear(request: Request) -> Any:
    return partial(native_call.linear, "portable", False)
