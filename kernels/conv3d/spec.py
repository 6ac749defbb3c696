"""Convolution of volumes (cross-correlation, as in all deep-learning libraries) and its two gradients, by sliding windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import FLOATS, Array, Format, float32, float64
from ulpgrad.kernels.conv.geometry import LARGEST, check_groups, grouped
from ulpgrad.kernels.spec import Op, Sample, of_absolutes

Triple = tuple[int, int, int]
AXES = ("depth", "height", "width")
ULPS: dict[Format, float] = {float32: 8, float64: 8}


def output_size(
    size: Sequence[int], kernel: Sequence[int], stride: Triple, padding: Triple, dilation: Triple
) -> Triple:
    """Number of window positions along depth, height and width."""
    d, h, w = (
        (s + 2 * p - a * (k - 1) - 1) // t + 1
        for s, k, t, p, a in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    return d, h, w


def _padded(a: Array, padding: Triple) -> Array:
    return np.pad(a, ((0, 0), (0, 0), *((p, p) for p in padding)))


def _windows(x: Array, kernel: Sequence[int], stride: Triple, padding: Triple, dilation: Triple) -> Array:
    """The patches that the kernel sees: [n, c, d, h, w] -> [n, c, od, oh, ow, kd, kh, kw], a view of the padded volumes."""
    spans = tuple(a * (k - 1) + 1 for k, a in zip(kernel, dilation, strict=True))
    seen = np.lib.stride_tricks.sliding_window_view(_padded(x, padding), spans, axis=(2, 3, 4))
    steps = tuple(slice(None, None, t) for t in (*stride, *dilation))
    view: Array = seen[(slice(None), slice(None), *steps)]
    return view


def _conv3d(
    x: Array, weight: Array, bias: Array | None, *, stride: Triple, padding: Triple, dilation: Triple, groups: int
) -> Array:
    seen = grouped(_windows(x, weight.shape[2:], stride, padding, dilation), 1, groups)
    y = np.einsum("ngcdhwijk,gocijk->ngodhw", seen, grouped(weight, 0, groups), optimize=True)
    y = y.reshape(y.shape[0], weight.shape[0], *y.shape[3:])
    return y if bias is None else y + bias[:, None, None, None]


def _input_gradient(
    g: Array, weight: Array, *, size: Triple, stride: Triple, padding: Triple, dilation: Triple, groups: int
) -> Array:
    (n, _, *count), (_, c, *kernel) = g.shape, weight.shape
    by_group, filters = grouped(g, 1, groups), grouped(weight, 0, groups)
    padded = _padded(np.zeros((n, c * groups, *size)), padding)
    for tap in np.ndindex(*kernel):
        places = tuple(
            slice(i * a, i * a + (m - 1) * t + 1, t) for i, a, m, t in zip(tap, dilation, count, stride, strict=True)
        )
        seen = padded[(slice(None), slice(None), *places)]
        seen += np.einsum("ngodhw,goc->ngcdhw", by_group, filters[(..., *tap)]).reshape(seen.shape)
    inside = tuple(slice(p, p + s) for p, s in zip(padding, size, strict=True))
    return padded[(slice(None), slice(None), *inside)]


def _weight_gradient(
    g: Array, x: Array, *, size: Triple, stride: Triple, padding: Triple, dilation: Triple, groups: int
) -> Array:
    seen = grouped(_windows(x, size, stride, padding, dilation), 1, groups)
    gradient = np.einsum("ngodhw,ngcdhwijk->gocijk", grouped(g, 1, groups), seen, optimize=True)
    return gradient.reshape(g.shape[1], x.shape[1] // groups, *size)


def _check_triples(op: str, least: int, **triples: Any) -> None:
    for name, value in triples.items():
        if not (isinstance(value, tuple) and len(value) == 3 and all(isinstance(v, int) and v >= least for v in value)):
            raise ArgumentError(
                f"{op}: {name}={value!r}: expected three whole numbers of at least {least}, for depth, height and width"
            )
        if max(value) > LARGEST:
            raise ArgumentError(f"{op}: {name}={value!r}: expected at most {LARGEST}")


def _check_windows(
    op: str, size: Sequence[int], kernel: Sequence[int], stride: Any, padding: Any, dilation: Any
) -> None:
    _check_triples(op, 1, kernel_size=tuple(kernel), stride=stride, dilation=dilation)
    _check_triples(op, 0, padding=padding)
    for axis, s, k, p, d in zip(AXES, size, kernel, padding, dilation, strict=True):
        if d * (k - 1) + 1 > s + 2 * p:
            raise ShapeError(
                f"{op}: {axis}: a kernel that spans {d * (k - 1) + 1} on the padded {p} + {s} + {p}: expected no more"
            )


def _check_volumes(
    op: str, name: str, shape: Sequence[int], axes: str = "batch, channels, depth, height, width"
) -> None:
    if len(shape) != 5:
        raise ShapeError(f"{op}: {name} has shape {tuple(shape)}: expected 5 axes ({axes})")


def _check_conv3d(
    x: Array, weight: Array, bias: Array | None, *, stride: Triple, padding: Triple, dilation: Triple, groups: int
) -> None:
    _check_volumes("conv3d", "x", x.shape)
    _check_volumes("conv3d", "weight", weight.shape, "out, in / groups, depth, height, width")
    check_groups("conv3d", x.shape[1], weight.shape[0], groups)
    if x.shape[1] != weight.shape[1] * groups:
        raise ShapeError(
            f"conv3d: channels differ: x {x.shape} has {x.shape[1]}, weight {weight.shape} with groups={groups} takes "
            f"{weight.shape[1]} * {groups} = {weight.shape[1] * groups}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"conv3d: bias has shape {bias.shape}: expected {weight.shape[:1]}, one value per output")
    _check_windows("conv3d", x.shape[2:], weight.shape[2:], stride, padding, dilation)


def _check_positions(
    op: str, g: Array, size: Triple, kernel: Sequence[int], stride: Triple, padding: Triple, dilation: Triple
) -> None:
    _check_windows(op, size, kernel, stride, padding, dilation)
    expected = output_size(size, kernel, stride, padding, dilation)
    if g.shape[2:] != expected:
        raise ShapeError(
            f"{op}: g has shape {g.shape}: a kernel of {tuple(kernel)} on volumes of {size} with stride {stride}, padding "
            f"{padding} and dilation {dilation} gives {expected}, not {g.shape[2:]}"
        )


def _check_input_gradient(
    g: Array, weight: Array, *, size: Triple, stride: Triple, padding: Triple, dilation: Triple, groups: int
) -> None:
    op = "conv3d_input_gradient"
    _check_volumes(op, "g", g.shape)
    _check_triples(op, 1, size=size)
    if weight.ndim != 5 or weight.shape[0] != g.shape[1]:
        raise ShapeError(f"{op}: g {g.shape} has {g.shape[1]} channels (axis 1), weight {weight.shape} gives others")
    check_groups(op, weight.shape[1] * max(groups, 1), weight.shape[0], groups)
    _check_positions(op, g, size, weight.shape[2:], stride, padding, dilation)


def _check_weight_gradient(
    g: Array, x: Array, *, size: Triple, stride: Triple, padding: Triple, dilation: Triple, groups: int
) -> None:
    op = "conv3d_weight_gradient"
    _check_volumes(op, "g", g.shape)
    _check_volumes(op, "x", x.shape)
    if g.shape[0] != x.shape[0]:
        raise ShapeError(f"{op}: batches (axis 0) differ: g {g.shape}, x {x.shape}: {g.shape[0]} != {x.shape[0]}")
    check_groups(op, x.shape[1], g.shape[1], groups)
    _check_positions(op, g, x.shape[2:], size, stride, padding, dilation)


#       x                   weight            stride     padding    dilation groups  what it is
CASES = (
    ((2, 3, 5, 6, 4), (4, 3, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1, "same"),
    ((2, 4, 5, 6, 7), (6, 2, 3, 2, 3), (2, 1, 2), (1, 0, 1), (1, 2, 1), 2, "strides, dilation, groups"),
    ((1, 3, 4, 4, 4), (2, 3, 1, 1, 1), (1, 3, 1), (0, 0, 0), (1, 1, 1), 1, "one tap with strides"),
    ((2, 5, 3, 4, 6), (7, 5, 1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1, "one tap"),
    ((1, 2, 6, 5, 4), (3, 2, 2, 3, 2), (3, 1, 2), (2, 2, 2), (2, 1, 2), 1, "wide padding"),
    ((1, 20, 4, 5, 3), (20, 1, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 20, "depthwise"),
    ((1, 2, 1, 6, 6), (3, 2, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1, "one slice"),
    ((1, 3, 4, 5, 6), (2, 3, 4, 5, 6), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1, "kernel as large as the volume"),
    ((1, 2, 5, 5, 5), (3, 2, 2, 2, 2), (3, 4, 3), (0, 0, 0), (1, 1, 1), 1, "stride larger than kernel"),
    ((1, 33, 12, 20, 9), (17, 33, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1, "a volume of several blocks"),
    ((0, 3, 4, 4, 4), (2, 3, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1, "empty batch"),
)  # fmt: skip


def _cases() -> Iterator[tuple[Array, Array, Array, Array, dict[str, Any], str]]:
    """(x, weight, bias, g, params, name) for each row of CASES; values are exact in every float format."""
    random = np.random.default_rng(0)

    def values(*shape: int) -> Array:
        return random.integers(-8, 9, shape) / 8

    for x, weight, stride, padding, dilation, groups, name in CASES:
        size = output_size(x[2:], weight[2:], stride, padding, dilation)
        params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        yield values(*x), values(*weight), values(weight[0]), values(x[0], weight[0], *size), params, name


def _conv3d_samples() -> Iterator[Sample]:
    for index, (x, weight, bias, _, params, name) in enumerate(_cases()):
        yield Sample((x, weight, bias if index % 2 == 0 else None), params, name)


def _input_gradient_samples() -> Iterator[Sample]:
    for x, weight, _, g, params, name in _cases():
        yield Sample((g, weight), {"size": x.shape[2:], **params}, name)


def _weight_gradient_samples() -> Iterator[Sample]:
    for x, weight, _, g, params, name in _cases():
        yield Sample((g, x), {"size": weight.shape[2:], **params}, name)


def _flops(x: Array, weight: Array, _: Array | None, *, groups: int, **geometry: Any) -> float:
    return 2.0 * x.shape[0] * prod(weight.shape) * prod(output_size(x.shape[2:], weight.shape[2:], **geometry))


conv3d = Op(
    "conv3d",
    "(x: [n, c, d, h, w], weight: [o, c/groups, kd, kh, kw], bias: [o] | None, *, stride, padding, dilation, groups) "
    "-> [n, o, od, oh, ow]",
    _conv3d,
    doc="Each output is the sum of a window of x times a filter, over depth, height and width; the filter is not flipped.",
    check=_check_conv3d,
    formats=FLOATS,
    flops=_flops,
    samples=_conv3d_samples,
    ulps=ULPS,
    magnitude=of_absolutes(_conv3d),
)

conv3d_input_gradient = Op(
    "conv3d_input_gradient",
    "(g: [n, o, od, oh, ow], weight: [o, c/groups, kd, kh, kw], *, size, stride, padding, dilation, groups) -> [n, c, d, h, w]",
    _input_gradient,
    doc="The gradient of conv3d with respect to x, whose volumes have depth, height and width `size`.",
    check=_check_input_gradient,
    formats=FLOATS,
    flops=lambda g, weight, **_: 2.0 * g.shape[0] * prod(weight.shape) * prod(g.shape[2:]),
    samples=_input_gradient_samples,
    ulps=ULPS,
    magnitude=of_absolutes(_input_gradient),
)

conv3d_weight_gradient = Op(
    "conv3d_weight_gradient",
    "(g: [n, o, od, oh, ow], x: [n, c, d, h, w], *, size, stride, padding, dilation, groups) -> [o, c/groups, kd, kh, kw]",
    _weight_gradient,
    doc="The gradient of conv3d with respect to weight, whose filters have depth, height and width `size`.",
    check=_check_weight_gradient,
    formats=FLOATS,
    flops=lambda g, x, *, size, groups, **_: 2.0 * prod(g.shape) * (x.shape[1] // groups) * prod(size),
    samples=_weight_gradient_samples,
    ulps=ULPS,
    magnitude=of_absolutes(_weight_gradient),
)

__all__ = ["conv3d", "conv3d_input_gradient", "conv3d_weight_gradient", "output_size"]
