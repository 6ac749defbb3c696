"""A counting sort of the indices; then each thread owns rows of the result and adds what belongs to them, in index order.

No atomics, and the same bits on any number of threads. Next limit: rows of g are read in random order.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import INTEGERS, Array, float32, float64
from ulpgrad.kernels.embedding import spec
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.registry import kernel


@jit()
def _sorted(indices, starts, order):  # type: ignore[no-untyped-def]
    """starts[r] to starts[r + 1]: the positions in `order` of index r, rising."""
    for i in range(indices.size):
        starts[indices[i] + 1] += 1
    for r in range(starts.size - 1):
        starts[r + 1] += starts[r]
    place = starts.copy()
    for i in range(indices.size):
        order[place[indices[i]]] = i
        place[indices[i]] += 1


@jit(parallel=True)
def _add(g, starts, order, out):  # type: ignore[no-untyped-def]
    for r in prange(out.shape[0]):
        out[r] = 0
        for k in range(starts[r], starts[r + 1]):
            for j in range(out.shape[1]):
                out[r, j] += g[order[k], j]


@kernel(spec.embedding_gradient, "cpu/numba-counted", rank=20, formats=[float32, float64, *INTEGERS], contiguous=True)
def embedding_gradient(g: Array, indices: Array, *, rows: int) -> Array:
    spec.validate("embedding_gradient", indices, rows)
    flat = indices.reshape(-1).astype(np.int64, copy=False)
    starts, order = np.zeros(rows + 1, np.int64), np.empty(flat.size, np.int64)
    _sorted(flat, starts, order)
    out = np.empty((rows, g.shape[-1]), g.dtype)
    _add(g.reshape(flat.size, g.shape[-1]), starts, order, out)
    return out
