"""Each thread owns rows of the result, reads all indices and adds what belongs to its own, in index order.

No atomics, and the same bits on any number of threads. Next limit: every thread reads every index.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import INTEGERS, Array, float32, float64
from ulpgrad.kernels.embedding import spec
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.registry import kernel

PARTS = 8
WIDE = 16  # values in a row: to look for shorter ones costs a thread as much as to add them


@jit(parallel=True)
def _add(g, indices, out, parts):  # type: ignore[no-untyped-def]
    for part in prange(parts):
        begin, end = part * out.shape[0] // parts, (part + 1) * out.shape[0] // parts
        for i in range(indices.size):
            r = indices[i]
            if begin <= r < end:
                for j in range(out.shape[1]):
                    out[r, j] += g[i, j]


@kernel(spec.embedding_gradient, "cpu/numba-owned", rank=20, formats=[float32, float64, *INTEGERS], contiguous=True)
def embedding_gradient(g: Array, indices: Array, *, rows: int) -> Array:
    spec.validate("embedding_gradient", indices, rows)
    out = np.zeros((rows, g.shape[-1]), g.dtype)
    flat = indices.reshape(-1).astype(np.int64, copy=False)
    _add(g.reshape(flat.size, g.shape[-1]), flat, out, PARTS if g.shape[-1] >= WIDE else 1)
    return out
