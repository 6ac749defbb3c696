"""Leading axes folded away: kernels take rows of x, or one stack of matrices."""

from __future__ import annotations

import math

import numpy as np

from ulpgrad.formats import Array


def rows(x: Array) -> Array:
    """x[..., k] as x[m, k]; a view where there is one."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def stacks(a: Array, b: Array) -> tuple[Array, Array, tuple[int, ...]]:
    """a and b as [stack, rows, columns], where a stack of one serves all of the other's; and the stack's full shape."""
    shape = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])

    def fold(x: Array) -> Array:
        if math.prod(x.shape[:-2]) == 1:
            return x.reshape(1, *x.shape[-2:])
        whole = np.broadcast_to(x, (*shape, *x.shape[-2:]))
        return np.ascontiguousarray(whole).reshape(math.prod(shape), *x.shape[-2:])

    return fold(a), fold(b), shape


def product(a: Array, b: Array, shape: tuple[int, ...]) -> Array:
    """Zeros for the product of what `stacks` returned, as one stack of matrices."""
    return np.zeros((math.prod(shape), a.shape[1], b.shape[2]), a.dtype)
