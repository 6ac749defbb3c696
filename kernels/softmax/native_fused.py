"""C++: a row stays in the first cache through all its sweeps, exp is a polynomial on vectors, rows go to threads.

exp(x - max) is stored on its way into the sum, so it is taken once. Along other axes than the last, 64 columns are taken
together instead of moving the axis by a copy. 16-bit floats are widened as they are read and rounded once. Next limit:
memory, one read and one write.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ulpgrad.formats import Array, bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.softmax import spec

FORMATS = [float16, bfloat16, float32, float64]


def _along(run: Callable[..., Array], axis: int, *arrays: Array) -> Array:
    """`run` on the arrays seen as [outer, n, inner] around the axis."""
    shape = arrays[0].shape
    around = (math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))
    return run(*(a.reshape(around) for a in arrays)).reshape(shape)


@kernel(spec.softmax, "cpu/native-fused", rank=50, formats=FORMATS, contiguous=True)
def softmax(x: Array, *, axis: int) -> Array:
    return _along(native.module().softmax, axis, x)


@kernel(spec.log_softmax, "cpu/native-fused", rank=50, formats=FORMATS, contiguous=True)
def log_softmax(x: Array, *, axis: int) -> Array:
    return _along(native.module().log_softmax, axis, x)


@kernel(spec.softmax_gradient, "cpu/native-fused", rank=50, formats=FORMATS, contiguous=True)
def softmax_gradient(g: Array, y: Array, *, axis: int) -> Array:
    return _along(native.module().softmax_gradient, axis, g, y)


@kernel(spec.log_softmax_gradient, "cpu/native-fused", rank=50, formats=FORMATS, contiguous=True)
def log_softmax_gradient(g: Array, y: Array, *, axis: int) -> Array:
    return _along(native.module().log_softmax_gradient, axis, g, y)
