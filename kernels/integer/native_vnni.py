"""AVX-512 VNNI multiplies four bytes, or two words, and adds them in one instruction. Bytes must be signed times unsigned: others
are moved by 128 while they are packed, and row and column sums take that back. Words whose exact sum is wanted are split into
bytes on one side, which 32 bits hold for 256 steps. Next limit: the dot-product units."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array
from ulpgrad.kernels.integer import native_call, spec
from ulpgrad.kernels.registry import Request, kernel


@kernel(
    spec.integer_matmul,
    "cpu/native-vnni",
    rank=80,
    formats=spec.FORMATS,
    requires=("native", "avx512_vnni"),
    build=True,
)
def integer_matmul(request: Request) -> Any:
    return native_call.matmul(request, "avx512_vnni")


@kernel(spec.integer_conv2d, "cpu/native-vnni", rank=80, formats=spec.FORMATS, requires=("native", "avx512_vnni"))
def integer_conv2d(x: Array, weight: Array, **params: Any) -> Array:
    return native_call.conv2d(x, weight, "avx512_vnni", **params)
