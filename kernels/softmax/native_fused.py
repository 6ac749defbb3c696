"""C++: a row stays in the first cache through all its sweeps, exp is a polynomial on vectors, rows go to threads.

exp(x - max) is stored on its way into the sum, so it is taken once. Along other axes than the last, 64 columns are taken
together instead of moving the axis by a copy. 16-bit floats are widened as they are read and rounded once. Next limit:
memory, one read and one write.
"""

from __future__ import annotations

from ulpgrad.formats import Array, bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.softmax import spec

FORMATS = [float16, bfloat16, float32, float64]


@kernel(spec.softmax, "cpu/native-fused", rank=50, formats=FORMATS, contiguous=True)
def softmax(x: Array, *, axis: int) -> Array:
    out: Array = native.module().softmax(x, axis)
    return out


@kernel(spec.log_softmax, "cpu/native-fused", rank=50, formats=FORMATS, contiguous=True)
def log_softmax(x: Array, *, axis: int) -> Array:
    out: Array = native.module().log_softmax(x, axis)
    return out


@kernel(spec.softmax_gradient, "cpu/native-fused", rank=50, formats=FORMATS, contiguous=True)
def softmax_gradient(g: Array, y: Array, *, axis: int) -> Array:
    out: Array = native.module().softmax_gradient(g, y, axis)
    return out


@kernel(spec.log_softmax_gradient, "cpu/native-fused", rank=50, formats=FORMATS, contiguous=True)
def log_softmax_gradient(g: Array, y: Array, *, axis: int) -> Array:
    out: Array = native.module().log_softmax_gradient(g, y, axis)
    return out
