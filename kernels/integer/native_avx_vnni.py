"""AVX-VNNI is VNNI on 32-byte vectors, for CPUs without AVX-512: four products of bytes, or two of words, added in one
instruction. Next limit: the dot-product units, half as wide as AVX-512's."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array
from ulpgrad.kernels.integer import native_call, spec
from ulpgrad.kernels.registry import Request, kernel


@kernel(
    spec.integer_matmul,
    "cpu/native-avx-vnni",
    rank=65,
    formats=spec.FORMATS,
    requires=("native", "avx_vnni"),
    build=True,
)
def integer_matmul(request: Request) -> Any:
    return native_call.matmul(request, "avx_vnni")


@kernel(spec.integer_conv2d, "cpu/native-avx-vnni", rank=65, formats=spec.FORMATS, requires=("native", "avx_vnni"))
def integer_conv2d(x: Array, weight: Array, **params: Any) -> Array:
    return native_call.conv2d(x, weight, "avx_vnni", **params)
