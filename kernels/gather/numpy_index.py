"""NumPy's index arrays. Sums are one count (`bincount`, in float64) over flat positions. Next limit: those positions, and
passes over memory."""

from __future__ import annotations

import math

import numpy as np

from ulpgrad.formats import ALL, INTEGERS, Array, float32, float64
from ulpgrad.kernels.gather import spec
from ulpgrad.kernels.registry import kernel


@kernel(spec.take_along_axis, "cpu/numpy-take", rank=10, formats=ALL)
def take_along_axis(x: Array, indices: Array, *, axis: int) -> Array:
    spec.validate("take_along_axis", indices, x.shape[axis])
    return np.take_along_axis(x, indices.astype(np.int64, copy=False), axis)


@kernel(spec.scatter_add, "cpu/numpy-count", rank=10, formats=[float32, float64, *INTEGERS], where=spec.floats)
def scatter_add(g: Array, indices: Array, *, axis: int, size: int) -> Array:
    spec.validate("scatter_add", indices, size)
    shape = (*g.shape[:axis], size, *g.shape[axis + 1 :])
    outer, inner = math.prod(g.shape[:axis]), math.prod(g.shape[axis + 1 :])
    rows = indices.astype(np.int64, copy=False)
    rows = np.where(rows < 0, rows + size, rows).reshape(outer, g.shape[axis], inner)
    lines = np.arange(outer)[:, None, None] * size
    positions = (lines + rows) * inner + np.arange(inner)
    sums = np.bincount(positions.reshape(-1), g.reshape(-1), math.prod(shape))
    return sums.astype(g.dtype, copy=False).reshape(shape)
