"""One loop over lines along the axis, which threads share out: a line's sums are made in the order of its indices.

Next limit: checks of the indices in passes of their own.
"""

from __future__ import annotations

import math

import numpy as np

from ulpgrad.formats import INTEGERS, Array, float32, float64
from ulpgrad.kernels.gather import spec
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.registry import kernel


@jit(parallel=True)
def _add(g, indices, out):  # type: ignore[no-untyped-def]
    size, inner = out.shape[1], out.shape[2]
    for line in prange(out.shape[0] * inner):
        o, j = line // inner, line % inner
        for i in range(g.shape[1]):
            k = indices[o, i, j]
            out[o, k if k >= 0 else k + size, j] += g[o, i, j]


@kernel(spec.scatter_add, "cpu/numba-lines", rank=20, formats=[float32, float64, *INTEGERS], contiguous=True)
def scatter_add(g: Array, indices: Array, *, axis: int, size: int) -> Array:
    spec.validate("scatter_add", indices, size)
    outer, inner = math.prod(g.shape[:axis]), math.prod(g.shape[axis + 1 :])
    sums = np.zeros((outer, size, inner), g.dtype)
    shape = (outer, g.shape[axis], inner)
    _add(g.reshape(shape), indices.astype(np.int64, copy=False).reshape(shape), sums)
    return sums.reshape(*g.shape[:axis], size, *g.shape[axis + 1 :])
