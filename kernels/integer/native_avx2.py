"""32-byte vectors: vpmaddwd on pairs of 16 bits, for bytes too, because vpmaddubsw saturates. Next limit: two instructions per
step, and half of each pair of bytes' width unused."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array
from ulpgrad.kernels.integer import native_call, spec
from ulpgrad.kernels.registry import Request, kernel


@kernel(spec.integer_matmul, "cpu/native-avx2", rank=60, formats=spec.FORMATS, requires=("native", "avx2"), build=True)
def integer_matmul(request: Request) -> Any:
    return native_call.matmul(request, "avx2")


@kernel(spec.integer_conv2d, "cpu/native-avx2", rank=60, formats=spec.FORMATS, requires=("native", "avx2"))
def integer_conv2d(x: Array, weight: Array, **params: Any) -> Array:
    return native_call.conv2d(x, weight, "avx2", **params)
