"""What becomes of the sums of a rung in Numba: their activation, or the largest of each window first."""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.kernels.conv.geometry import Pair
from ulpgrad.kernels.matmul.numba_parallel import ACTIVATIONS, finish
from ulpgrad.kernels.pool import numba_planes


def activated(y: Array, activation: str | None) -> Array:
    """Images, changed in place."""
    if activation is not None:
        width = y.shape[-1]
        rows, none = y.reshape(y.size // width, width), np.empty((0, width), y.dtype)
        finish(rows, np.ones(width, y.dtype), np.zeros(width, y.dtype), ACTIVATIONS.index(activation), none)
    return y


def largest(y: Array, window: Pair, activation: str | None) -> tuple[Array, Array]:
    """The activation of the largest value of each window, and its place."""
    pooling = {"kernel_size": window, "stride": window, "padding": (0, 0), "dilation": (1, 1)}
    values, places = numba_planes.max_pool2d(y, **pooling)
    return activated(values, activation), places
