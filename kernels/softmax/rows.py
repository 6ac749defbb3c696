"""A softmax axis anywhere becomes the last one: kernels see rows of n contiguous values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.kernels import native


def by_rung(rung: str) -> Callable[..., Array]:
    """The C++ rung of that name (csrc/cpu/ladder), for rows of float32."""
    return partial(native.module().softmax_ladder, rung)


def along_last(run: Callable[..., Array], arrays: tuple[Array, ...], axis: int) -> Array:
    """`run` on [rows, n] copies or views of the arrays, its result in the arrays' own shape."""
    shape = arrays[0].shape
    n = shape[axis]
    if axis == len(shape) - 1:
        return run(*(np.ascontiguousarray(a).reshape(-1, n) if a.size else a.reshape(0, n) for a in arrays)).reshape(
            shape
        )
    moved = [np.ascontiguousarray(np.moveaxis(a, axis, -1)) for a in arrays]
    y = run(*(a.reshape(-1, n) if a.size else a.reshape(0, n) for a in moved))
    return np.ascontiguousarray(np.moveaxis(y.reshape(moved[0].shape), -1, axis))
