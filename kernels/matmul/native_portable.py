"""Compiled for any CPU: panels are packed, and a tile of C stays in registers while k runs. Next limit: on x86-64,
16-byte vectors and no fused multiply-add."""

from __future__ import annotations

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.matmul import layout, spec
from ulpgrad.kernels.registry import kernel


@kernel(spec.matmul, "cpu/native-portable", rank=50, formats=[float32, float64])
def matmul(a: Array, b: Array) -> Array:
    return native.module().matmul(a, b, "portable")


@kernel(spec.linear, "cpu/native-portable", rank=50, formats=[float32, float64])
def linear(x: Array, weight: Array, bias: Array | None, *, activation: str | None = None) -> Array:
    if bias is not None and not bias.flags.c_contiguous:
        bias = bias.copy()
    out = native.module().linear(layout.rows(x), weight, bias, activation or "", "portable")
    return out.reshape(*x.shape[:-1], weight.shape[0])
