"""C++: whole rows are copied by threads; in the gradient each thread reads all indices and adds to the rows it owns.

Indices are checked in the same call. Next limit: memory; rows in random order defeat the prefetcher when they are short.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import ALL, INTEGERS, Array, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.embedding import spec
from ulpgrad.kernels.registry import kernel


def _indices(name: str, indices: Array, rows: int) -> Array:
    """Indices as a flat int64 array, all of them rows."""
    flat = indices.reshape(-1).astype(np.int64, copy=False)  # uint64 beyond 2^63 turn negative, and are refused as well
    if native.module().first_outside(flat, rows) >= 0:
        spec.validate(name, indices, rows)
    return flat


@kernel(spec.embedding, "cpu/native-rows", rank=50, formats=ALL, contiguous=True)
def embedding(weight: Array, indices: Array) -> Array:
    flat = _indices("embedding", indices, weight.shape[0])
    rows: Array = native.module().embedding(weight, flat)
    return rows.reshape(*indices.shape, weight.shape[1])


@kernel(spec.embedding_gradient, "cpu/native-rows", rank=50, formats=[float32, float64, *INTEGERS], contiguous=True,
        where=spec.floats)  # fmt: skip
def embedding_gradient(g: Array, indices: Array, *, rows: int) -> Array:
    flat = _indices("embedding_gradient", indices, rows)
    out: Array = native.module().embedding_gradient(g.reshape(flat.size, g.shape[-1]), flat, rows)
    return out
