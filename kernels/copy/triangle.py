"""Triangles of large matrices, without a mask as large as they are."""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.kernels.copy.into import copied

ROWS = 64  # that share a mask


def triangle(x: Array, k: int, lower: bool) -> Array:
    """A copy of a stack of matrices with zeros above (`lower`) or else below the k-th diagonal."""
    out = copied(x)
    m, n = x.shape[-2:]
    for first in range(0, m, ROWS):
        last = min(first + ROWS, m)
        rows = out[..., first:last, :]
        # Columns from `begin` to `end` are inside of some of these rows only; beyond, of none.
        begin, end = (min(max(c, 0), n) for c in ((first + 1 + k, last + k) if lower else (first + k, last - 1 + k)))
        if lower:
            rows[..., end:] = 0
        else:
            rows[..., :begin] = 0
        if begin < end:
            inside = np.tri(last - first, end - begin, first + k - begin - (not lower), dtype=np.bool_)
            rows[..., begin:end][..., ~inside if lower else inside] = 0
    return out
