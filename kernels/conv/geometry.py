"""How kernel, stride, padding and dilation place windows on an image, and the errors when they do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import Array

Pair = tuple[int, int]
AXES = ("height", "width")
LARGEST = 2**31 - 1  # of a setting: sums and products of them then fit 64 bits


def output_size(size: Sequence[int], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Pair:
    """Number of window positions along height and width."""
    rows, columns = (
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, k, t, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    return rows, columns


def grouped(a: Array, axis: int, groups: int) -> Array:
    """Split an axis into (groups, size / groups)."""
    return a.reshape(*a.shape[:axis], groups, a.shape[axis] // groups, *a.shape[axis + 1 :])


def check_groups(op: str, channels: int, outputs: int, groups: Any) -> None:
    """Channels and outputs divide into groups."""
    if not isinstance(groups, int) or groups < 1:
        raise ArgumentError(f"{op}: groups={groups!r}: expected a whole number of at least 1")
    for name, count in (("input channels (axis 1)", channels), ("output channels", outputs)):
        if count % groups:
            raise ShapeError(f"{op}: {count} {name} do not divide into groups={groups}")


def check_pairs(op: str, least: int, **pairs: Any) -> None:
    """Each argument is two whole numbers of at least `least`, for height and width."""
    for name, value in pairs.items():
        if not (isinstance(value, tuple) and len(value) == 2 and all(isinstance(v, int) and v >= least for v in value)):
            raise ArgumentError(
                f"{op}: {name}={value!r}: expected two whole numbers of at least {least}, for height and width"
            )
        if max(value) > LARGEST:
            raise ArgumentError(f"{op}: {name}={value!r}: expected at most {LARGEST}")


def check_windows(op: str, size: Sequence[int], kernel: Pair, stride: Pair, padding: Pair, dilation: Pair) -> None:
    """At least one window fits on the padded image."""
    check_pairs(op, 1, kernel_size=kernel, stride=stride, dilation=dilation)
    check_pairs(op, 0, padding=padding)
    for axis, s, k, p, d in zip(AXES, size, kernel, padding, dilation, strict=True):
        if d * (k - 1) + 1 > s + 2 * p:
            spans = f"a kernel of {k}" + (f" with dilation {d} spans {d * (k - 1) + 1}" if d > 1 else "")
            raise ShapeError(f"{op}: {axis}: {spans}, which is more than the padded {s} + 2 * {p} = {s + 2 * p}")


def check_image(op: str, name: str, shape: Sequence[int]) -> None:
    """The operand has the four axes of a batch of images."""
    if len(shape) != 4:
        raise ShapeError(f"{op}: {name} has shape {tuple(shape)}: expected 4 axes (batch, channels, height, width)")
