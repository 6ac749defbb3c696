"""Triangles of matrices."""

from __future__ import annotations

import functools
import operator

import numpy as np

from ulpgrad.device import current, module_of
from ulpgrad.differentiable import check_movable, made, moved
from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import bool_
from ulpgrad.kernels.copy import triangle
from ulpgrad.ops.creation import zeros
from ulpgrad.ops.elementwise import where
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

__all__ = ["tril", "triu"]

MASKED = 1 << 16  # values of a matrix up to which there is a mask of its own size


@remembered
def tril(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The lower triangle of each matrix, zeros above the k-th diagonal."""
    return _triangle("tril", x, k, True)


@remembered
def triu(x: Tensor, /, *, k: int = 0) -> Tensor:
    """The upper triangle of each matrix, zeros below the k-th diagonal."""
    return _triangle("triu", x, k, False)


def _triangle(name: str, x: Tensor, k: int, lower: bool) -> Tensor:
    if x.ndim < 2:
        raise ShapeError(f"{name}: expected at least two dimensions, got shape {x.shape}")
    try:
        k = operator.index(k)
    except TypeError:
        raise ArgumentError(f"{name}: k={k!r}: expected the number of a diagonal, an integer") from None
    if x.dtype.kind == "block":
        check_movable(name, x.dtype, [x])
    m, n = x.shape[-2:]
    if m * n > MASKED and x.storage.__class__ is np.ndarray and not x.dtype.routed:
        run = functools.partial(triangle, k=k, lower=lower)
        return moved(name, [x], run, lambda g: _triangle(name, g, k, lower))
    with current(x.device):
        below = module_of(x.storage).tri(m, n, k if lower else k - 1, dtype=np.bool_)
    return where(made(Tensor(below if lower else ~below, bool_)), x, zeros((), dtype=x.dtype))
