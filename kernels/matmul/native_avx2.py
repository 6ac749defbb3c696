"""32-byte vectors and fused multiply-adds: a 6 x 16 tile of float32 fills twelve of the sixteen registers. Next limit:
the registers; a larger tile would use each loaded value more often."""

from __future__ import annotations

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.matmul import layout, spec
from ulpgrad.kernels.registry import kernel


@kernel(spec.matmul, "cpu/native-avx2", rank=60, formats=[float32, float64], requires=("native", "avx2"))
def matmul(a: Array, b: Array) -> Array:
    return native.module().matmul(a, b, "avx2")


@kernel(spec.linear, "cpu/native-avx2", rank=60, formats=[float32, float64], requires=("native", "avx2"))
def linear(x: Array, weight: Array, bias: Array | None, *, activation: str | None = None) -> Array:
    if bias is not None and not bias.flags.c_contiguous:
        bias = bias.copy()
    out = native.module().linear(layout.rows(x), weight, bias, activation or "", "avx2")
    return out.reshape(*x.shape[:-1], weight.shape[0])
