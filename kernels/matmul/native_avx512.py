"""64-byte vectors and 32 registers: a 14 x 32 tile of float32 takes 16 loads for 28 FMAs. Next limit: the FMA units; for
bfloat16, that they multiply one pair at a time."""

from __future__ import annotations

from ulpgrad.formats import Array, bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.matmul import layout, spec
from ulpgrad.kernels.registry import kernel

FORMATS = (bfloat16, float16, float32, float64)


@kernel(spec.matmul, "cpu/native-avx512", rank=80, formats=FORMATS, requires=("native", "avx512"))
def matmul(a: Array, b: Array) -> Array:
    return native.module().matmul(a, b, "avx512", dots=False)


@kernel(spec.linear, "cpu/native-avx512", rank=80, formats=FORMATS, requires=("native", "avx512"))
def linear(x: Array, weight: Array, bias: Array | None, *, activation: str | None = None) -> Array:
    out = native.module().linear(layout.rows(x), weight, bias, activation or "", "avx512", dots=False)
    return out.reshape(*x.shape[:-1], weight.shape[0])
