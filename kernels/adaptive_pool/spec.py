"""Pooling to a given size: window i of n over s values is [floor(i s / n), ceil((i + 1) s / n)). Windows cover the image; where n
does not divide s they differ by one in length and overlap, and they are single values, repeated, where n is larger than s.

Sums of windows follow one order on every rung, whatever the number of threads: row by row, from left to right. Where windows are
all alike they are avg_pool2d's, and those of whole rows are means, summed by the tree of reductions where they lie in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import FLOATS, Array, Format, float32, float64, int64
from ulpgrad.kernels.conv.geometry import IMAGES, Pair, check_axes, check_numbers
from ulpgrad.kernels.spec import Op, Sample


def spans(size: int, count: int) -> list[tuple[int, int]]:
    """What each of `count` windows sees of `size` values, [first, end). With the two exchanged: the windows that see a value."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def alike(size: Pair, output_size: Pair) -> Pair | None:
    """The size of all windows, side by side, where they are all alike; None where they are not."""
    if size[0] % output_size[0] or size[1] % output_size[1]:
        return None
    return size[0] // output_size[0], size[1] // output_size[1]


def _windows(size: Pair, output_size: Pair) -> Iterator[tuple[int, int, slice, slice]]:
    for i, rows in enumerate(spans(size[0], output_size[0])):
        for j, columns in enumerate(spans(size[1], output_size[1])):
            yield i, j, slice(*rows), slice(*columns)


def _adaptive_avg_pool2d(x: Array, *, output_size: Pair) -> Array:
    y = np.empty((*x.shape[:2], *output_size))
    for i, j, rows, columns in _windows(x.shape[2:], output_size):
        y[:, :, i, j] = x[:, :, rows, columns].mean((-2, -1))
    return y


def _adaptive_avg_pool2d_gradient(g: Array, *, size: Pair) -> Array:
    dx = np.zeros((*g.shape[:2], *size))
    for i, j, rows, columns in _windows(size, g.shape[2:]):
        seen = dx[:, :, rows, columns]
        seen += g[:, :, i, j, None, None] / prod(seen.shape[2:])
    return dx


def _adaptive_max_pool2d(x: Array, *, output_size: Pair) -> tuple[Array, Array]:
    y, indices = np.empty((*x.shape[:2], *output_size)), np.empty((*x.shape[:2], *output_size), np.int64)
    place = np.arange(prod(x.shape[2:])).reshape(x.shape[2:])
    for i, j, rows, columns in _windows(x.shape[2:], output_size):
        seen = x[:, :, rows, columns].reshape(*x.shape[:2], place[rows, columns].size)
        first = seen.argmax(-1)  # NaN before all, the first of equal ones
        y[:, :, i, j] = np.take_along_axis(seen, first[..., None], -1)[..., 0]
        indices[:, :, i, j] = place[rows, columns].reshape(-1)[first]
    return y, indices


def check_sizes(op: str, name: str, size: Pair, output_size: Pair) -> None:
    """Images have at least one row and one column, and so have results."""
    check_numbers(op, 1, IMAGES, **{name: output_size})
    for axis, s in zip(IMAGES.axes, size, strict=True):
        if s < 1:
            raise ShapeError(f"{op}: {axis}: images of {tuple(size)} have no values to pool: expected at least 1")


def _check(op: str) -> Callable[..., None]:
    def check(x: Array, *, output_size: Pair) -> None:
        check_axes(op, "x", x.shape)
        check_sizes(op, "output_size", x.shape[2:], output_size)

    return check


def _check_gradient(g: Array, *, size: Pair) -> None:
    op = "adaptive_avg_pool2d_gradient"
    check_axes(op, "g", g.shape)
    check_numbers(op, 1, size=size)
    if min(g.shape[2:]) < 1:
        raise ArgumentError(f"{op}: g has shape {g.shape}: expected at least one window along each axis")


#         x             to       what it is
CASES = (
    ((2, 3, 6, 8), (3, 4), "windows alike"),
    ((2, 3, 7, 9), (3, 4), "windows differ and overlap"),
    ((1, 2, 13, 37), (5, 19), "more windows than lanes"),
    ((2, 2, 10, 7), (7, 7), "one axis as it is"),
    ((2, 3, 5, 4), (1, 1), "the whole image"),
    ((1, 2, 70, 70), (1, 1), "the whole image, of several blocks"),
    ((2, 1, 6, 5), (1, 3), "rows as one"),
    ((1, 2, 6, 4), (3, 1), "columns as one"),
    ((1, 2, 3, 2), (5, 7), "more windows than values"),
    ((3, 2, 1, 1), (1, 1), "one of each"),
    ((0, 2, 4, 4), (3, 3), "empty batch"),
    ((2, 0, 4, 4), (3, 3), "no channels"),
)


def _avg_samples() -> Iterator[Sample]:
    random = np.random.default_rng(0)
    for shape, output_size, name in CASES:
        yield Sample((np.asarray(random.normal(size=shape) * 100),), {"output_size": output_size}, name)


def _gradient_samples() -> Iterator[Sample]:
    random = np.random.default_rng(1)
    for shape, output_size, name in CASES:
        g = np.asarray(random.normal(size=(*shape[:2], *output_size)))
        yield Sample((g,), {"size": shape[2:]}, name)


def _max_samples() -> Iterator[Sample]:
    random = np.random.default_rng(0)
    for shape, output_size, name in CASES:
        yield Sample((random.integers(-3, 4, shape) / 2,), {"output_size": output_size}, name)  # with ties
    x = np.full((1, 1, 5, 20), -np.inf)
    x[0, 0, 0, 3:6] = x[0, 0, 1, 2] = np.nan
    x[0, 0, 2, 10] = np.inf
    yield Sample((x,), {"output_size": (3, 7)}, "infinities and NaN")


def _of_absolutes(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, **params: function(np.abs(x), **params)


def _max_result(x: Format, **_: Any) -> tuple[Format, Format]:
    return x, int64


adaptive_avg_pool2d = Op(
    "adaptive_avg_pool2d",
    "(x: [n, c, h, w], *, output_size) -> [n, c, oh, ow]",
    _adaptive_avg_pool2d,
    doc="The mean of each window, of which there are oh x ow.",
    check=_check("adaptive_avg_pool2d"),
    formats=FLOATS,
    flops=lambda x, **_: float(x.size),
    samples=_avg_samples,
    ulps={float32: 6, float64: 6},
    magnitude=_of_absolutes(_adaptive_avg_pool2d),
)

adaptive_avg_pool2d_gradient = Op(
    "adaptive_avg_pool2d_gradient",
    "(g: [n, c, oh, ow], *, size) -> [n, c, h, w]",
    _adaptive_avg_pool2d_gradient,
    doc="Each gradient is shared out equally among its window.",
    check=_check_gradient,
    formats=FLOATS,
    flops=lambda g, *, size: float(prod(g.shape[:2]) * prod(size)),
    samples=_gradient_samples,
    ulps={float32: 4, float64: 4},
    magnitude=_of_absolutes(_adaptive_avg_pool2d_gradient),
)

adaptive_max_pool2d = Op(
    "adaptive_max_pool2d",
    "(x: [n, c, h, w], *, output_size) -> ([n, c, oh, ow], indices: [n, c, oh, ow])",
    _adaptive_max_pool2d,
    doc="The maximum of each window, and its place in the image as row * w + column. The first of equal ones; NaN is "
    "larger than all. max_pool2d_gradient is its gradient.",
    check=_check("adaptive_max_pool2d"),
    result=_max_result,
    formats=FLOATS,
    samples=_max_samples,
)

__all__ = [
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_gradient",
    "adaptive_max_pool2d",
    "alike",
    "check_sizes",
    "spans",
]
