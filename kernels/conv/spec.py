"""Convolution (cross-correlation, as in all deep-learning libraries) and its two gradients, by sliding windows."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import FLOATS, Array, Format, float32, float64
from ulpgrad.kernels.conv.geometry import Pair, check_image, check_pairs, check_windows, output_size
from ulpgrad.kernels.spec import Op, Sample

ULPS: dict[Format, float] = {float32: 8, float64: 8}


def windows(x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Array:
    """The patches that the kernel sees: [n, c, h, w] -> [n, c, oh, ow, kh, kw], a view of the padded images."""
    padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    seen = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(2, 3))
    return seen[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def _grouped(a: Array, axis: int, groups: int) -> Array:
    """Split an axis into (groups, size / groups)."""
    return a.reshape(*a.shape[:axis], groups, a.shape[axis] // groups, *a.shape[axis + 1 :])


def _conv2d(
    x: Array, weight: Array, bias: Array | None, *, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    seen = _grouped(windows(x, weight.shape[2:], stride, padding, dilation), 1, groups)
    y = np.einsum("ngchwij,gocij->ngohw", seen, _grouped(weight, 0, groups), optimize=True)
    y = y.reshape(y.shape[0], weight.shape[0], *y.shape[3:])
    return y if bias is None else y + bias[:, None, None]


def _input_gradient(
    g: Array, weight: Array, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    (n, _, oh, ow), (_, c, kh, kw) = g.shape, weight.shape
    out, by_group, filters = np.zeros((n, c * groups, *size)), _grouped(g, 1, groups), _grouped(weight, 0, groups)
    padded = np.pad(out, ((0, 0), (0, 0), *((p, p) for p in padding)))
    for i in range(kh):
        for j in range(kw):
            seen = padded[:, :, i * dilation[0] :: stride[0], j * dilation[1] :: stride[1]][:, :, :oh, :ow]
            seen += np.einsum("ngohw,goc->ngchw", by_group, filters[..., i, j]).reshape(seen.shape)
    return padded[:, :, padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]


def _weight_gradient(
    g: Array, x: Array, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    seen = _grouped(windows(x, size, stride, padding, dilation), 1, groups)[:, :, :, : g.shape[2], : g.shape[3]]
    gradient = np.einsum("ngohw,ngchwij->gocij", _grouped(g, 1, groups), seen, optimize=True)
    return gradient.reshape(g.shape[1], x.shape[1] // groups, *size)


def _flops(
    x: Array, weight: Array, _: Array | None, *, stride: Pair, padding: Pair, dilation: Pair, **__: Any
) -> float:
    positions = output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return 2.0 * x.shape[0] * prod(weight.shape) * prod(positions)


def _of_absolutes(function: Any) -> Any:
    """The same sums over absolute values: what an error is measured against."""
    return lambda *arrays, **params: function(*(None if a is None else np.abs(a) for a in arrays), **params)


def _check_groups(op: str, channels: int, outputs: int, groups: Any) -> None:
    if not isinstance(groups, int) or groups < 1:
        raise ArgumentError(f"{op}: groups={groups!r}: expected a whole number of at least 1")
    for name, count in (("input channels (axis 1)", channels), ("output channels", outputs)):
        if count % groups:
            raise ShapeError(f"{op}: {count} {name} do not divide into groups={groups}")


def _check_conv2d(
    x: Array, weight: Array, bias: Array | None, *, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> None:
    check_image("conv2d", "x", x.shape)
    if weight.ndim != 4:
        raise ShapeError(f"conv2d: weight has shape {weight.shape}: expected 4 axes (out, in / groups, height, width)")
    _check_groups("conv2d", x.shape[1], weight.shape[0], groups)
    if x.shape[1] != weight.shape[1] * groups:
        raise ShapeError(
            f"conv2d: channels differ: x {x.shape} has {x.shape[1]}, weight {weight.shape} with groups={groups} takes "
            f"{weight.shape[1]} * {groups} = {weight.shape[1] * groups}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"conv2d: bias has shape {bias.shape}: expected {weight.shape[:1]}, one value per output")
    check_windows("conv2d", x.shape[2:], weight.shape[2:], stride, padding, dilation)


def _check_positions(op: str, g: Array, size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> None:
    check_windows(op, size, kernel, stride, padding, dilation)
    expected = output_size(size, kernel, stride, padding, dilation)
    if g.shape[2:] != expected:
        raise ShapeError(
            f"{op}: g has shape {g.shape}: a kernel of {kernel} on images of {size} with stride {stride}, padding "
            f"{padding} and dilation {dilation} gives {expected}, not {g.shape[2:]}"
        )


def _check_input_gradient(
    g: Array, weight: Array, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> None:
    op = "conv2d_input_gradient"
    check_image(op, "g", g.shape)
    check_pairs(op, 1, size=size)
    if weight.ndim != 4 or weight.shape[0] != g.shape[1]:
        raise ShapeError(f"{op}: g {g.shape} has {g.shape[1]} channels (axis 1), weight {weight.shape} gives others")
    _check_groups(op, weight.shape[1] * max(groups, 1), weight.shape[0], groups)
    _check_positions(op, g, size, weight.shape[2:], stride, padding, dilation)


def _check_weight_gradient(
    g: Array, x: Array, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> None:
    op = "conv2d_weight_gradient"
    check_image(op, "g", g.shape)
    check_image(op, "x", x.shape)
    if g.shape[0] != x.shape[0]:
        raise ShapeError(f"{op}: batches (axis 0) differ: g {g.shape}, x {x.shape}: {g.shape[0]} != {x.shape[0]}")
    _check_groups(op, x.shape[1], g.shape[1], groups)
    _check_positions(op, g, x.shape[2:], size, stride, padding, dilation)


#       x              weight         stride  padding dilation groups  what it is
CASES = (
    ((2, 3, 7, 6), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1, "same"),
    ((3, 1, 8, 8), (5, 1, 3, 3), (1, 1), (0, 0), (1, 1), 1, "one channel"),
    ((2, 4, 9, 11), (6, 2, 3, 2), (2, 3), (1, 2), (1, 1), 2, "strides, even kernel, groups"),
    ((1, 2, 10, 9), (3, 2, 3, 3), (1, 2), (2, 3), (2, 3), 1, "dilation"),
    ((2, 3, 8, 9), (2, 3, 3, 2), (2, 2), (3, 2), (3, 1), 1, "dilation and stride, wide padding"),
    ((2, 5, 6, 6), (5, 1, 3, 3), (1, 1), (1, 1), (1, 1), 5, "depthwise"),
    ((2, 3, 7, 5), (6, 1, 2, 3), (2, 1), (1, 0), (1, 1), 3, "depthwise, two outputs each"),
    ((2, 19, 5, 4), (21, 19, 1, 1), (1, 1), (0, 0), (1, 1), 1, "1x1"),
    ((2, 3, 7, 8), (2, 3, 1, 1), (2, 3), (0, 0), (1, 1), 1, "1x1 with strides"),
    ((2, 2, 5, 5), (3, 2, 1, 1), (1, 1), (2, 1), (1, 1), 1, "1x1 on padding"),
    ((2, 2, 9, 9), (3, 2, 2, 2), (3, 4), (0, 0), (1, 1), 1, "stride larger than kernel"),
    ((1, 3, 5, 6), (2, 3, 5, 6), (1, 1), (0, 0), (1, 1), 1, "kernel as large as the image"),
    ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), (0, 0), (1, 1), 1, "one of each"),
    ((1, 2, 3, 70), (9, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1, "long rows"),
    ((40, 2, 3, 3), (3, 2, 2, 2), (1, 1), (0, 0), (1, 1), 1, "many small images"),
    ((1, 3, 90, 30), (17, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1, "an image of several blocks"),
    ((0, 3, 5, 5), (2, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1, "empty batch"),
    ((2, 3, 5, 5), (0, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1, "no outputs"),
    ((2, 0, 5, 5), (2, 0, 3, 3), (1, 1), (1, 1), (1, 1), 1, "no channels"),
)  # fmt: skip


SAME = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}


def _cases() -> Iterator[tuple[Array, Array, Array, Array, dict[str, Any], str]]:
    """(x, weight, bias, g, params, name) for each row of CASES; values are exact in every float format."""
    random = np.random.default_rng(0)

    def values(*shape: int) -> Array:
        return random.integers(-8, 9, shape) / 8

    for x, weight, stride, padding, dilation, groups, name in CASES:
        oh, ow = output_size(x[2:], weight[2:], stride, padding, dilation)
        params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        yield values(*x), values(*weight), values(weight[0]), values(x[0], weight[0], oh, ow), params, name


def _conv2d_samples() -> Iterator[Sample]:
    for index, (x, weight, bias, _, params, name) in enumerate(_cases()):
        yield Sample((x, weight, bias if index % 2 == 0 else None), params, name)
    random = np.random.default_rng(1)
    x, weight = random.normal(size=(2, 33, 12, 13)) * 100, random.normal(size=(18, 33, 3, 3))
    params = SAME
    yield Sample((x, weight, None), params, "long sums")
    last_column, scale = np.zeros((1, 1, 4, 20)), np.array([[[[2.0, 0.0, 1.0]]]])
    last_column[..., 1, -1], last_column[..., 2, 3] = np.inf, np.nan
    yield Sample((last_column, scale, None), {**params, "padding": (0, 1)}, "infinity and NaN")


def _input_gradient_samples() -> Iterator[Sample]:
    for x, weight, _, g, params, name in _cases():
        yield Sample((g, weight), {"size": x.shape[2:], **params}, name)


def _weight_gradient_samples() -> Iterator[Sample]:
    for x, weight, _, g, params, name in _cases():
        yield Sample((g, x), {"size": weight.shape[2:], **params}, name)
    random = np.random.default_rng(1)
    g, x = random.normal(size=(5, 7, 12, 13)), random.normal(size=(5, 6, 12, 13)) * 100
    params = {**SAME, "size": (3, 3)}
    yield Sample((g, x), params, "long sums")
    x = np.ones((1, 2, 4, 20))
    x[0, 0, 1, -1] = np.inf
    yield Sample((np.ones((1, 1, 4, 18)), x), {**params, "size": (1, 3), "padding": (0, 0)}, "infinity at the edge")


conv2d = Op(
    "conv2d",
    "(x: [n, c, h, w], weight: [o, c/groups, kh, kw], bias: [o] | None, *, stride, padding, dilation, groups) "
    "-> [n, o, oh, ow]",
    _conv2d,
    doc="Each output is the sum of a window of x times a filter; the filter is not flipped.",
    check=_check_conv2d,
    formats=FLOATS,
    flops=_flops,
    samples=_conv2d_samples,
    ulps=ULPS,
    magnitude=_of_absolutes(_conv2d),
)

conv2d_input_gradient = Op(
    "conv2d_input_gradient",
    "(g: [n, o, oh, ow], weight: [o, c/groups, kh, kw], *, size, stride, padding, dilation, groups) -> [n, c, h, w]",
    _input_gradient,
    doc="The gradient of conv2d with respect to x, whose images have height and width `size`.",
    check=_check_input_gradient,
    formats=FLOATS,
    flops=lambda g, weight, **_: 2.0 * g.shape[0] * prod(weight.shape) * prod(g.shape[2:]),
    samples=_input_gradient_samples,
    ulps=ULPS,
    magnitude=_of_absolutes(_input_gradient),
)

conv2d_weight_gradient = Op(
    "conv2d_weight_gradient",
    "(g: [n, o, oh, ow], x: [n, c, h, w], *, size, stride, padding, dilation, groups) -> [o, c/groups, kh, kw]",
    _weight_gradient,
    doc="The gradient of conv2d with respect to weight, whose filters have height and width `size`.",
    check=_check_weight_gradient,
    formats=FLOATS,
    flops=lambda g, x, *, size, groups, **_: 2.0 * prod(g.shape) * (x.shape[1] // groups) * prod(size),
    samples=_weight_gradient_samples,
    ulps=ULPS,
    magnitude=_of_absolutes(_weight_gradient),
)

__all__ = ["conv2d", "conv2d_input_gradient", "conv2d_weight_gradient", "windows"]
