"""What the C++ rungs of the teaching ladder share: reduced axes become the last one, kernels see rows."""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.kernels import native
from ulpgrad.kernels.reduction.spec import Axes, result_shape, split


def total(rung: str, x: Array, axis: Axes, keepdims: bool) -> Array:
    """Sums over axes side by side by the rung of csrc/cpu/ladder of that name."""
    outer, n, inner = split(x.shape, axis)
    rows = np.ascontiguousarray(x.reshape(outer, n, inner).swapaxes(1, 2)).reshape(outer * inner, n)
    out: Array = native.module().sum_ladder(rung, rows)
    return out.reshape(result_shape(x.shape, axis, keepdims))
