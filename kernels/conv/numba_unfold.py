"""Patches are written out as columns (im2col), so that the convolution is a matrix product, which BLAS knows how to block.

Next limit: the columns are kernel-size times the images, written to memory once and read again.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.activated import activated, largest
from ulpgrad.kernels.conv.geometry import Pair, output_size
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.registry import kernel

FORMATS = (float32, float64)
COLUMN_VALUES = 1 << 21  # of the images that are unfolded at a time


@jit(parallel=True)
def _unfold(x: Any, columns: Any, stride: Any, padding: Any, dilation: Any) -> None:
    images, channels, height, width = x.shape
    kernel_rows, kernel_columns, rows, per_row = columns.shape[2:]
    for task in prange(images * channels):
        n, c = task // channels, task % channels
        for i in range(kernel_rows):
            for j in range(kernel_columns):
                for row in range(rows):
                    h = row * stride[0] + i * dilation[0] - padding[0]
                    for q in range(per_row):
                        w = q * stride[1] + j * dilation[1] - padding[1]
                        inside = 0 <= h < height and 0 <= w < width
                        columns[n, c, i, j, row, q] = x[n, c, h, w] if inside else 0


@jit(parallel=True)
def _fold(columns: Any, x: Any, stride: Any, padding: Any, dilation: Any) -> None:
    images, channels, height, width = x.shape
    kernel_rows, kernel_columns, rows, per_row = columns.shape[2:]
    for task in prange(images * channels):
        n, c = task // channels, task % channels
        for i in range(kernel_rows):
            for j in range(kernel_columns):
                for row in range(rows):
                    h = row * stride[0] + i * dilation[0] - padding[0]
                    if 0 <= h < height:
                        for q in range(per_row):
                            w = q * stride[1] + j * dilation[1] - padding[1]
                            if 0 <= w < width:
                                x[n, c, h, w] += columns[n, c, i, j, row, q]


def _blocks(images: int, values_per_image: int) -> Iterator[slice]:
    """Images that are unfolded together."""
    step = max(1, COLUMN_VALUES // max(1, values_per_image))
    return (slice(first, min(first + step, images)) for first in range(0, images, step))


def _columns(x: Array, kernel: Pair, positions: Pair, groups: int, geometry: tuple[Pair, Pair, Pair]) -> Array:
    """[n, c, h, w] -> [n, groups, c / groups * kh * kw, oh * ow]."""
    images, channels = x.shape[:2]
    columns = np.empty((images, channels, *kernel, *positions), x.dtype)
    _unfold(x, columns, *geometry)
    return columns.reshape(images, groups, channels // groups * prod(kernel), prod(positions))


def _filters(weight: Array, groups: int) -> Array:
    """[o, c, kh, kw] -> [groups, o / groups, c * kh * kw]."""
    return weight.reshape(groups, weight.shape[0] // groups, prod(weight.shape[1:]))


@kernel(spec.conv2d, "cpu/numba-unfold", rank=30, formats=FORMATS, contiguous=True)
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    activation: str | None = None,
) -> Array:
    kernel_size, geometry = weight.shape[2:], (stride, padding, dilation)
    positions = output_size(x.shape[2:], kernel_size, *geometry)
    y = np.empty((x.shape[0], groups, weight.shape[0] // groups, prod(positions)), x.dtype)
    for block in _blocks(len(x), x.shape[1] * prod(kernel_size) * prod(positions)):
        columns = _columns(x[block], kernel_size, positions, groups, geometry)
        np.matmul(_filters(weight, groups), columns, out=y[block])
    y = y.reshape(len(x), weight.shape[0], *positions)
    if bias is not None:
        y += bias[:, None, None]
    return activated(y, activation)


@kernel(
    spec.conv2d_max_pool,
    "cpu/numba-unfold",
    rank=30,
    formats=FORMATS,
    contiguous=True,
    idea="conv2d's rung of this name, then the largest value of each window, then the activation of these alone.",
)
def conv2d_max_pool(
    x: Array, weight: Array, bias: Array | None, *, window: Pair, activation: str | None = None, **geometry: Any
) -> tuple[Array, Array]:
    return largest(conv2d(x, weight, bias, groups=1, **geometry), window, activation)


@kernel(spec.conv2d_input_gradient, "cpu/numba-unfold", rank=30, formats=FORMATS, contiguous=True)
def input_gradient(
    g: Array, weight: Array, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    (images, outputs), positions, channels = g.shape[:2], g.shape[2:], weight.shape[1] * groups
    dx = np.zeros((images, channels, *size), g.dtype)
    kernel_size, rows = weight.shape[2:], g.reshape(images, groups, outputs // groups, prod(positions))
    for block in _blocks(images, channels * prod(kernel_size) * prod(positions)):
        columns = _filters(weight, groups).swapaxes(1, 2) @ rows[block]
        columns = columns.reshape(len(columns), channels, *kernel_size, *positions)
        _fold(columns, dx[block], stride, padding, dilation)
    return dx


@kernel(spec.conv2d_weight_gradient, "cpu/numba-unfold", rank=30, formats=FORMATS, contiguous=True)
def weight_gradient(
    g: Array, x: Array, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    (images, outputs), positions, channels = g.shape[:2], g.shape[2:], x.shape[1] // groups
    dw = np.zeros((groups, outputs // groups, channels * prod(size)), g.dtype)
    rows = g.reshape(images, groups, outputs // groups, prod(positions))
    for block in _blocks(images, channels * groups * prod(size) * prod(positions)):
        columns = _columns(x[block], size, g.shape[2:], groups, (stride, padding, dilation))
        dw += (rows[block] @ columns.swapaxes(2, 3)).sum(axis=0)
    return dw.reshape(outputs, channels, *size)
