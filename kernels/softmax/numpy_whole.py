"""Whole-array NumPy: five passes over memory, each a vectorised loop. Short calls, so the best choice for small inputs.

Next limit: every pass writes a temporary as large as x; beyond the cache, memory sets the pace.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.softmax import spec


def _maximum(x: Array, axis: int) -> Array:
    return x.max(axis=axis, keepdims=True, initial=-np.inf)


@kernel(spec.softmax, "cpu/numpy-whole", rank=10, formats=[float32, float64])
def softmax(x: Array, *, axis: int) -> Array:
    with np.errstate(all="ignore"):
        y = np.subtract(x, _maximum(x, axis))
        np.exp(y, out=y)
        y /= y.sum(axis=axis, keepdims=True)
    return y


@kernel(spec.log_softmax, "cpu/numpy-whole", rank=10, formats=[float32, float64])
def log_softmax(x: Array, *, axis: int) -> Array:
    with np.errstate(all="ignore"):
        y = np.subtract(x, _maximum(x, axis))
        y -= np.log(np.exp(y).sum(axis=axis, keepdims=True))
    return y


@kernel(spec.softmax_gradient, "cpu/numpy-whole", rank=10, formats=[float32, float64])
def softmax_gradient(g: Array, y: Array, *, axis: int) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(y * (g - (g * y).sum(axis=axis, keepdims=True)))


@kernel(spec.log_softmax_gradient, "cpu/numpy-whole", rank=10, formats=[float32, float64])
def log_softmax_gradient(g: Array, y: Array, *, axis: int) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(g - np.exp(y) * g.sum(axis=axis, keepdims=True))
