"""How kernel, stride, padding and dilation place windows on an image or a volume, and the errors when they do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import Array

Pair = tuple[int, int]
Triple = tuple[int, int, int]
Sizes = TypeVar("Sizes", bound=tuple[int, ...])
LARGEST = 2**31 - 1  # of a setting: sums and products of them then fit 64 bits


class Space(NamedTuple):
    """What windows slide over, as messages name it."""

    things: str
    axes: tuple[str, ...]
    number: str


IMAGES = Space("images", ("height", "width"), "two")
VOLUMES = Space("volumes", ("depth", "height", "width"), "three")


def output_size(size: Sequence[int], kernel: Sequence[int], stride: Sizes, padding: Sizes, dilation: Sizes) -> Sizes:
    """Number of window positions along each axis."""
    positions: Any = tuple(
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, k, t, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )
    return positions


def padded(x: Array, padding: Sequence[int]) -> Array:
    """Zeros around (n, c, ...): as many before and behind as `padding` says of each axis."""
    return np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)))


def windows(
    x: Array, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Array:
    """The patches that the kernel sees: [n, c, h, w] -> [n, c, oh, ow, kh, kw], or with depth before height; a view of what is
    padded."""
    spans = tuple(d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True))
    seen = np.lib.stride_tricks.sliding_window_view(padded(x, padding), spans, axis=tuple(range(2, x.ndim)))
    view: Array = seen[:, :, *(slice(None, None, step) for step in (*stride, *dilation))]
    return view


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


def check_numbers(op: str, least: int, space: Space = IMAGES, **given: Any) -> None:
    """Each argument is a tuple of whole numbers of at least `least`, one for each axis."""
    for name, value in given.items():
        fits = isinstance(value, tuple) and len(value) == len(space.axes)
        if not (fits and all(isinstance(v, int) and v >= least for v in value)):
            raise ArgumentError(
                f"{op}: {name}={value!r}: expected {space.number} whole numbers of at least {least}, for "
                f"{', '.join(space.axes[:-1])} and {space.axes[-1]}"
            )
        if max(value) > LARGEST:
            raise ArgumentError(f"{op}: {name}={value!r}: expected at most {LARGEST}")


def check_windows(
    op: str, size: Sequence[int], kernel: Any, stride: Any, padding: Any, dilation: Any, space: Space = IMAGES
) -> None:
    """At least one window fits on what is padded."""
    check_numbers(op, 1, space, kernel_size=kernel, stride=stride, dilation=dilation)
    check_numbers(op, 0, space, padding=padding)
    for axis, s, k, p, d in zip(space.axes, size, kernel, padding, dilation, strict=True):
        span = d * (k - 1) + 1
        if span > s + 2 * p and space is VOLUMES:
            raise ShapeError(
                f"{op}: {axis}: a kernel that spans {span} on the padded {p} + {s} + {p}: expected no more"
            )
        if span > s + 2 * p:
            spans = f"a kernel of {k}" + (f" with dilation {d} spans {span}" if d > 1 else "")
            raise ShapeError(f"{op}: {axis}: {spans}, which is more than the padded {s} + 2 * {p} = {s + 2 * p}")


def check_axes(op: str, name: str, shape: Sequence[int], space: Space = IMAGES, first: str = "batch, channels") -> None:
    """The operand has the axes of a batch, or of filters where `first` says so."""
    if len(shape) != 2 + len(space.axes):
        axes = f"{first}, {', '.join(space.axes)}"
        raise ShapeError(f"{op}: {name} has shape {tuple(shape)}: expected {2 + len(space.axes)} axes ({axes})")
