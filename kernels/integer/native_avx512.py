"""64-byte vectors and a 6 x 64 tile of sums. Next limit: still two instructions per step, multiply and add."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array
from ulpgrad.kernels.integer import native_call, spec
from ulpgrad.kernels.registry import Request, kernel


@kernel(
    spec.integer_matmul, "cpu/native-avx512", rank=70, formats=spec.FORMATS, requires=("native", "avx512"), build=True
)
def integer_matmul(request: Request) -> Any:
    return native_call.matmul(request, "avx512")


@kernel(spec.integer_conv2d, "cpu/native-avx512", rank=70, formats=spec.FORMATS, requires=("native", "avx512"))
def integer_conv2d(x: Array, weight: Array, **params: Any) -> Array:
    return native_call.conv2d(x, weight, "avx512", **params)
