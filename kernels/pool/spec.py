"""Maximum and average over windows of images, and their gradients: each plane (image, channel) stands for itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.formats import FLOATS, Array, Format, float32, float64, int64
from ulpgrad.kernels.conv.geometry import IMAGES, Pair, check_axes, check_numbers, check_windows, output_size, windows
from ulpgrad.kernels.spec import Op, Sample

ONE = (1, 1)


def _is_real(size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Array:
    """Which places of each window lie on the image, not on padding: [oh, ow, kh, kw]."""
    return windows(np.ones((1, 1, *size)), kernel_size, stride, padding, dilation)[0, 0] > 0


def _max_pool2d(x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> tuple[Array, Array]:
    size = x.shape[2:]
    geometry = (kernel_size, stride, padding, dilation)
    real = _is_real(size, *geometry)
    seen = np.where(real, windows(x, *geometry), -np.inf)
    place = windows(np.arange(prod(size)).reshape(1, 1, *size), *geometry)
    # the first place that is as large as the maximum (argmax finds NaN first), among those on the image
    largest = seen.max(axis=(-2, -1), keepdims=True)
    wanted = real & ((seen == largest) | np.isnan(seen))
    first = wanted.reshape(*wanted.shape[:4], prod(kernel_size)).argmax(-1)[..., None]
    flat = np.broadcast_to(place, seen.shape).reshape(*wanted.shape[:4], prod(kernel_size))
    return largest[..., 0, 0], np.take_along_axis(flat, first, -1)[..., 0]


def _max_pool2d_gradient(g: Array, indices: Array, *, size: Pair) -> Array:
    check_indices(indices, size)
    out = np.zeros((*g.shape[:2], prod(size)))
    planes = out.reshape(prod(g.shape[:2]), prod(size))
    pair = (len(planes), prod(g.shape[2:]))
    np.add.at(planes, (np.arange(len(planes))[:, None], indices.reshape(pair)), g.reshape(pair))
    return out.reshape(*g.shape[:2], *size)


def _counts(size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> Array:
    """What each window's sum is divided by: [oh, ow]."""
    real = _is_real(size, kernel_size, stride, padding, ONE)
    return np.full(real.shape[:2], prod(kernel_size)) if count_include_pad else real.sum((-2, -1))


def _avg_pool2d(x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> Array:
    sums = windows(x, kernel_size, stride, padding, ONE).sum((-2, -1))
    return sums / _counts(x.shape[2:], kernel_size, stride, padding, count_include_pad)


def _avg_pool2d_gradient(
    g: Array, *, size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool
) -> Array:
    share = g / _counts(size, kernel_size, stride, padding, count_include_pad)
    (top, left), (oh, ow) = padding, g.shape[2:]
    padded = np.zeros((*g.shape[:2], size[0] + 2 * top, size[1] + 2 * left))
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            padded[:, :, i :: stride[0], j :: stride[1]][:, :, :oh, :ow] += share
    return padded[:, :, top : top + size[0], left : left + size[1]]


def check_indices(indices: Array, size: Pair) -> None:
    """ArgumentError if an index is not a place in an image."""
    if indices.size and (indices.min() < 0 or indices.max() >= prod(size)):
        bad = indices[(indices < 0) | (indices >= prod(size))].flat[0]
        raise ArgumentError(f"max_pool2d_gradient: index {bad} is outside images of {size} = {prod(size)} values")


def _check_pool(op: str, size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> None:
    check_windows(op, size, kernel_size, stride, padding, dilation)
    positions = output_size(size, kernel_size, stride, padding, dilation)
    for axis, s, n, k, t, p, d in zip(
        IMAGES.axes, size, positions, kernel_size, stride, padding, dilation, strict=True
    ):
        for window in (*range(min(n, -(-p // t))), n - 1):
            start = window * t - p
            tap = -(min(start, 0) // d)  # the first that is not before the image
            if tap >= k or start + tap * d >= s:
                raise ArgumentError(
                    f"{op}: {axis}: window {window} (kernel {k}, dilation {d}) lies on padding alone; expected less "
                    f"padding than {p} around {s}, or a larger kernel"
                )


def _check_max_pool2d(x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> None:
    check_axes("max_pool2d", "x", x.shape)
    _check_pool("max_pool2d", x.shape[2:], kernel_size, stride, padding, dilation)


def _check_max_pool2d_gradient(g: Array, indices: Array, *, size: Pair) -> None:
    check_axes("max_pool2d_gradient", "g", g.shape)
    check_numbers("max_pool2d_gradient", 1, size=size)
    if g.shape != indices.shape:
        raise ShapeError(f"max_pool2d_gradient: g {g.shape} and indices {indices.shape} differ in shape")


def _check_avg_pool2d(x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> None:
    check_axes("avg_pool2d", "x", x.shape)
    _check_pool("avg_pool2d", x.shape[2:], kernel_size, stride, padding, ONE)


def _check_avg_pool2d_gradient(
    g: Array, *, size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool
) -> None:
    op = "avg_pool2d_gradient"
    check_axes(op, "g", g.shape)
    check_numbers(op, 1, size=size)
    _check_pool(op, size, kernel_size, stride, padding, ONE)
    expected = output_size(size, kernel_size, stride, padding, ONE)
    if g.shape[2:] != expected:
        raise ShapeError(f"{op}: g has shape {g.shape}: windows of {kernel_size} on {size} give {expected}")


#      x              kernel   stride  padding dilation  what it is
CASES = (
    ((2, 3, 6, 8), (2, 2), (2, 2), (0, 0), (1, 1), "halves"),
    ((2, 3, 7, 9), (2, 2), (2, 2), (0, 0), (1, 1), "odd sizes, last row and column unseen"),
    ((1, 2, 8, 7), (3, 3), (2, 2), (1, 1), (1, 1), "overlap and padding"),
    ((2, 1, 5, 37), (3, 2), (1, 1), (1, 0), (1, 1), "stride 1"),
    ((1, 2, 9, 10), (2, 3), (3, 4), (0, 0), (1, 1), "stride larger than kernel"),
    ((1, 1, 4, 5), (4, 5), (1, 1), (0, 0), (1, 1), "all of the image"),
    ((3, 2, 1, 1), (1, 1), (1, 1), (0, 0), (1, 1), "one of each"),
    ((0, 2, 4, 4), (2, 2), (2, 2), (0, 0), (1, 1), "empty batch"),
    ((2, 0, 4, 4), (2, 2), (2, 2), (0, 0), (1, 1), "no channels"),
    ((1, 2, 9, 11), (2, 3), (2, 1), (1, 2), (3, 2), "dilation"),
)  # fmt: skip


def _max_samples() -> Iterator[Sample]:
    random = np.random.default_rng(0)
    for shape, kernel_size, stride, padding, dilation, name in CASES:
        params = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
        yield Sample((random.integers(-3, 4, shape) / 2,), params, name)  # with ties
        yield Sample((random.normal(size=shape) * 1000,), params, name + ", large")
    x = np.full((1, 1, 4, 20), -np.inf)
    x[0, 0, 0, 3:6] = x[0, 0, 1, 2] = np.nan
    x[0, 0, 2, 10] = np.inf
    params = {"kernel_size": (2, 2), "stride": (2, 1), "padding": (1, 1), "dilation": ONE}
    yield Sample((x,), params, "infinities and NaN")


def _max_gradient_samples() -> Iterator[Sample]:
    random = np.random.default_rng(0)
    for sample in _max_samples():
        (x,) = sample.arrays
        assert x is not None
        _, indices = _max_pool2d(x, **sample.params)
        g = np.asarray(random.integers(-8, 9, indices.shape) / 4)
        yield Sample((g, indices), {"size": x.shape[2:]}, sample.name)


def _avg_samples() -> Iterator[Sample]:
    random = np.random.default_rng(0)
    for shape, kernel_size, stride, padding, dilation, name in CASES:
        for count_include_pad in (False, True) if dilation == ONE else ():
            params = {"kernel_size": kernel_size, "stride": stride, "padding": padding}
            x = np.asarray(random.normal(size=shape) * 100)
            yield Sample((x,), {**params, "count_include_pad": count_include_pad}, name)


def _avg_gradient_samples() -> Iterator[Sample]:
    random = np.random.default_rng(1)
    for sample in _avg_samples():
        (x,) = sample.arrays
        assert x is not None
        g = np.asarray(random.normal(size=_avg_pool2d(x, **sample.params).shape))
        yield Sample((g,), {"size": x.shape[2:], **sample.params}, sample.name)


def _of_absolutes(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *indices, **params: function(np.abs(x), *indices, **params)


def _max_result(x: Format, **_: Any) -> tuple[Format, Format]:
    return x, int64


def _max_gradient_result(g: Format, indices: Format, **_: Any) -> Format:
    if not g.is_floating or indices is not int64:
        raise FormatError(f"max_pool2d_gradient: g is {g.name} and indices {indices.name}: expected a float and int64")
    return g


max_pool2d = Op(
    "max_pool2d",
    "(x: [n, c, h, w], *, kernel_size, stride, padding, dilation) -> ([n, c, oh, ow], indices: [n, c, oh, ow])",
    _max_pool2d,
    doc="The maximum of each window, and its place in the image as row * w + column. The first of equal ones; NaN is "
    "larger than all. Padding is never chosen.",
    check=_check_max_pool2d,
    result=_max_result,
    formats=FLOATS,
    samples=_max_samples,
)

max_pool2d_gradient = Op(
    "max_pool2d_gradient",
    "(g: [n, c, oh, ow], indices: [n, c, oh, ow], *, size) -> [n, c, h, w]",
    _max_pool2d_gradient,
    doc="Each gradient is added to the value that was the maximum.",
    check=_check_max_pool2d_gradient,
    result=_max_gradient_result,
    promote=(0,),
    formats=FLOATS.plus(int64),
    samples=_max_gradient_samples,
    ulps={float32: 4, float64: 4},
    magnitude=_of_absolutes(_max_pool2d_gradient),
)

avg_pool2d = Op(
    "avg_pool2d",
    "(x: [n, c, h, w], *, kernel_size, stride, padding, count_include_pad) -> [n, c, oh, ow]",
    _avg_pool2d,
    doc="The mean of each window; padding counts as zeros with count_include_pad, and not at all without.",
    check=_check_avg_pool2d,
    formats=FLOATS,
    flops=lambda x, *, kernel_size, stride, padding, **_: float(
        prod(x.shape[:2]) * prod(output_size(x.shape[2:], kernel_size, stride, padding, ONE)) * prod(kernel_size)
    ),
    samples=_avg_samples,
    ulps={float32: 4, float64: 4},
    magnitude=_of_absolutes(_avg_pool2d),
)

avg_pool2d_gradient = Op(
    "avg_pool2d_gradient",
    "(g: [n, c, oh, ow], *, size, kernel_size, stride, padding, count_include_pad) -> [n, c, h, w]",
    _avg_pool2d_gradient,
    doc="Each gradient is shared out equally among its window.",
    check=_check_avg_pool2d_gradient,
    formats=FLOATS,
    flops=lambda g, *, kernel_size, **_: float(g.size * prod(kernel_size)),
    samples=_avg_gradient_samples,
    ulps={float32: 4, float64: 4},
    magnitude=_of_absolutes(_avg_pool2d_gradient),
)

__all__ = ["avg_pool2d", "avg_pool2d_gradient", "check_indices", "max_pool2d", "max_pool2d_gradient"]
