"""What convolution of images (`spec`) and of volumes (`conv3d/spec`) have alike: the gradients by their sums, checks, costs and
samples, along any number of axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from ulpgrad.errors import ShapeError
from ulpgrad.formats import Array, Format, float32, float64
from ulpgrad.kernels.conv.geometry import (
    Space,
    check_axes,
    check_groups,
    check_numbers,
    check_windows,
    grouped,
    output_size,
    padded,
    windows,
)
from ulpgrad.kernels.spec import Sample

ULPS: dict[Format, float] = {float32: 8, float64: 8}
PLACES, TAPS = "dhw", "ijk"  # in sums: axes of positions, and of the filter
Sizes = tuple[int, ...]


def input_gradient(
    g: Array, weight: Array, *, size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Array:
    """Each tap of the filter adds its multiple of g to the places that it saw."""
    (n, _, *count), (_, c, *kernel) = g.shape, weight.shape
    at = PLACES[-len(size) :]
    by_group, filters = grouped(g, 1, groups), grouped(weight, 0, groups)
    gradient = padded(np.zeros((n, c * groups, *size)), padding)
    for tap in np.ndindex(*kernel):
        places = tuple(
            slice(i * d, i * d + (m - 1) * t + 1, t) for i, d, m, t in zip(tap, dilation, count, stride, strict=True)
        )
        seen = gradient[:, :, *places]
        seen += np.einsum(f"ngo{at},goc->ngc{at}", by_group, filters[..., *tap]).reshape(seen.shape)
    return gradient[:, :, *(slice(p, p + s) for p, s in zip(padding, size, strict=True))]


def weight_gradient(
    g: Array, x: Array, *, size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes, groups: int
) -> Array:
    """The sum over all positions of g there times what the filter saw."""
    seen = grouped(windows(x, size, stride, padding, dilation), 1, groups)
    at, tap = PLACES[-len(size) :], TAPS[: len(size)]
    gradient = np.einsum(f"ngo{at},ngc{at}{tap}->goc{tap}", grouped(g, 1, groups), seen, optimize=True)
    return gradient.reshape(g.shape[1], x.shape[1] // groups, *size)


def check(
    op: str, space: Space, x: Array, weight: Array, bias: Array | None, *, stride: Any, padding: Any, dilation: Any,
    groups: Any,
) -> None:  # fmt: skip
    """The operands of a convolution fit each other."""
    check_axes(op, "x", x.shape, space)
    check_axes(op, "weight", weight.shape, space, "out, in / groups")
    check_groups(op, x.shape[1], weight.shape[0], groups)
    if x.shape[1] != weight.shape[1] * groups:
        raise ShapeError(
            f"{op}: channels differ: x {x.shape} has {x.shape[1]}, weight {weight.shape} with groups={groups} takes "
            f"{weight.shape[1]} * {groups} = {weight.shape[1] * groups}"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"{op}: bias has shape {bias.shape}: expected {weight.shape[:1]}, one value per output")
    check_windows(op, x.shape[2:], weight.shape[2:], stride, padding, dilation, space)


def check_input_gradient(
    op: str, space: Space, g: Array, weight: Array, *, size: Any, groups: Any, **geometry: Any
) -> None:
    """The operands of the gradient with respect to x fit each other."""
    check_axes(op, "g", g.shape, space)
    check_numbers(op, 1, space, size=size)
    if weight.ndim != g.ndim or weight.shape[0] != g.shape[1]:
        raise ShapeError(f"{op}: g {g.shape} has {g.shape[1]} channels (axis 1), weight {weight.shape} gives others")
    check_groups(op, weight.shape[1] * max(groups, 1), weight.shape[0], groups)
    _check_positions(op, space, g, size, weight.shape[2:], **geometry)


def check_weight_gradient(
    op: str, space: Space, g: Array, x: Array, *, size: Any, groups: Any, **geometry: Any
) -> None:
    """The operands of the gradient with respect to weight fit each other."""
    check_axes(op, "g", g.shape, space)
    check_axes(op, "x", x.shape, space)
    if g.shape[0] != x.shape[0]:
        raise ShapeError(f"{op}: batches (axis 0) differ: g {g.shape}, x {x.shape}: {g.shape[0]} != {x.shape[0]}")
    check_groups(op, x.shape[1], g.shape[1], groups)
    _check_positions(op, space, g, x.shape[2:], size, **geometry)


def _check_positions(
    op: str, space: Space, g: Array, size: Sizes, kernel: Sizes, *, stride: Any, padding: Any, dilation: Any
) -> None:
    check_windows(op, size, kernel, stride, padding, dilation, space)
    expected = output_size(size, kernel, stride, padding, dilation)
    if g.shape[2:] != expected:
        raise ShapeError(
            f"{op}: g has shape {g.shape}: a kernel of {kernel} on {space.things} of {size} with stride {stride}, padding "
            f"{padding} and dilation {dilation} gives {expected}, not {g.shape[2:]}"
        )


def flops(
    x: Array, weight: Array, _: Array | None, *, stride: Sizes, padding: Sizes, dilation: Sizes, **__: Any
) -> float:
    """Two for each tap of each filter at each of its positions."""
    return (
        2.0
        * x.shape[0]
        * prod(weight.shape)
        * prod(output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation))
    )


def input_gradient_flops(g: Array, weight: Array, **_: Any) -> float:
    """The same in the gradient with respect to x."""
    return 2.0 * g.shape[0] * prod(weight.shape) * prod(g.shape[2:])


def weight_gradient_flops(g: Array, x: Array, *, size: Sizes, groups: int, **_: Any) -> float:
    """The same in the gradient with respect to weight."""
    return 2.0 * prod(g.shape) * (x.shape[1] // groups) * prod(size)


Case = tuple[Sizes, Sizes, Sizes, Sizes, Sizes, int, str]  # x, weight, stride, padding, dilation, groups, what it is


def made(cases: Sequence[Case]) -> Iterator[tuple[Array, Array, Array, Array, dict[str, Any], str]]:
    """(x, weight, bias, g, params, name) of each case; values are exact in every float format."""
    random = np.random.default_rng(0)

    def values(*shape: int) -> Array:
        return random.integers(-8, 9, shape) / 8

    for x, weight, stride, padding, dilation, groups, name in cases:
        size = output_size(x[2:], weight[2:], stride, padding, dilation)
        params = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        yield values(*x), values(*weight), values(weight[0]), values(x[0], weight[0], *size), params, name


def samples(cases: Sequence[Case]) -> Iterator[Sample]:
    """Of a convolution: every other case has a bias."""
    for index, (x, weight, bias, _, params, name) in enumerate(made(cases)):
        yield Sample((x, weight, bias if index % 2 == 0 else None), params, name)


def input_gradient_samples(cases: Sequence[Case]) -> Iterator[Sample]:
    """Of the gradient with respect to x."""
    for x, weight, _, g, params, name in made(cases):
        yield Sample((g, weight), {"size": x.shape[2:], **params}, name)


def weight_gradient_samples(cases: Sequence[Case]) -> Iterator[Sample]:
    """Of the gradient with respect to weight."""
    for x, weight, _, g, params, name in made(cases):
        yield Sample((g, x), {"size": weight.shape[2:], **params}, name)
