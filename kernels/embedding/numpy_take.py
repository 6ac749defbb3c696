"""NumPy's take, and a gradient that sorts the indices (stably) and adds each run of equal ones: no two adds meet in a row.

Next limit: the sorted copy of g, and NumPy's generic loop over runs.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import ALL, INTEGERS, Array, float32, float64
from ulpgrad.kernels.embedding import spec
from ulpgrad.kernels.registry import kernel


@kernel(spec.embedding, "cpu/numpy-take", rank=10, formats=ALL)
def embedding(weight: Array, indices: Array) -> Array:
    spec.validate("embedding", indices, weight.shape[0])
    return np.take(weight, indices.astype(np.intp, copy=False), axis=0)


@kernel(spec.embedding_gradient, "cpu/numpy-sorted", rank=10, formats=[float32, float64, *INTEGERS])
def embedding_gradient(g: Array, indices: Array, *, rows: int) -> Array:
    spec.validate("embedding_gradient", indices, rows)
    flat = indices.reshape(-1)
    out = np.zeros((rows, g.shape[-1]), g.dtype)
    if flat.size:
        order = np.argsort(flat, kind="stable")
        chosen, starts = np.unique(flat[order], return_index=True)
        out[chosen] = np.add.reduceat(
            g.reshape(flat.size, -1)[order] if g.size else g.reshape(flat.size, 0), starts, axis=0
        )
    return out
