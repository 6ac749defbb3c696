"""C++: a row stays in registers and first-level cache through all its sweeps, exp is a polynomial on vectors, rows go to threads.

exp(x - max) is stored on its way into the sum, so it is taken once. Next limit: memory, one read and one write.
"""

from __future__ import annotations

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.softmax import spec
from ulpgrad.kernels.softmax.rows import along_last


@kernel(spec.softmax, "cpu/native-fused", rank=50, formats=[float32, float64])
def softmax(x: Array, *, axis: int) -> Array:
    return along_last(native.module().softmax, (x,), axis)


@kernel(spec.log_softmax, "cpu/native-fused", rank=50, formats=[float32, float64])
def log_softmax(x: Array, *, axis: int) -> Array:
    return along_last(native.module().log_softmax, (x,), axis)


@kernel(spec.softmax_gradient, "cpu/native-fused", rank=50, formats=[float32, float64])
def softmax_gradient(g: Array, y: Array, *, axis: int) -> Array:
    return along_last(native.module().softmax_gradient, (g, y), axis)


@kernel(spec.log_softmax_gradient, "cpu/native-fused", rank=50, formats=[float32, float64])
def log_softmax_gradient(g: Array, y: Array, *, axis: int) -> Array:
    return along_last(native.module().log_softmax_gradient, (g, y), axis)
