"""C++: indices are checked as they are used, x is read in any layout, and threads share out lines along the axis. Sums are
set to zero line by line, just before they are added to.

Next limit: memory, where the axis is longer than a cache.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import ALL, INTEGERS, Array, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.gather import spec
from ulpgrad.kernels.registry import kernel


def _signed(name: str, indices: Array, size: int) -> Array:
    """Indices as C-contiguous int64; uint64 beyond that are refused here, where they would wrap."""
    if indices.dtype == np.uint64:
        spec.validate(name, indices, size)
    return np.ascontiguousarray(indices, np.int64)


@kernel(spec.take_along_axis, "cpu/native-lines", rank=50, formats=ALL)
def take_along_axis(x: Array, indices: Array, *, axis: int) -> Array:
    try:
        out: Array = native.module().take_along_axis(x, _signed("take_along_axis", indices, x.shape[axis]), axis)
    except IndexError:
        spec.validate("take_along_axis", indices, x.shape[axis])
        raise
    return out


@kernel(spec.scatter_add, "cpu/native-lines", rank=50, formats=[float32, float64, *INTEGERS])
def scatter_add(g: Array, indices: Array, *, axis: int, size: int) -> Array:
    try:
        sums: Array = native.module().scatter_add(
            np.ascontiguousarray(g), _signed("scatter_add", indices, size), axis, size
        )
    except IndexError:
        spec.validate("scatter_add", indices, size)
        raise
    return sums
