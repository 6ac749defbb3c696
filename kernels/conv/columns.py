"""What each tap of a filter meets, written out (im2col), as arrays of any library: so a convolution and its gradients are
products of matrices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ulpgrad.kernels.conv.geometry import Pair, output_size

Slices = tuple[slice, slice]


def inside(count: int, size: int, first: int, step: int) -> tuple[int, int]:
    """The range of i below `count` for which 0 <= first + i * step < size."""
    low = min(count, max(0, -(first // step)))
    return low, min(count, max(low, (size - 1 - first) // step + 1))


def places(
    size: Pair, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Iterator[tuple[int, int, Slices, Slices]]:
    """For each tap (i, j): the positions of a window at which it lies in the image, and the pixels that it meets there."""
    positions = output_size(size, kernel, stride, padding, dilation)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            at, met = [], []
            for tap, count, pixels, s, p, d in zip((i, j), positions, size, stride, padding, dilation, strict=True):
                first = tap * d - p
                low, high = inside(count, pixels, first, s)
                at.append(slice(low, high))
                met.append(slice(first + low * s, first + (high - 1) * s + 1, s) if low < high else slice(0, 0))
            yield i, j, (at[0], at[1]), (met[0], met[1])


def gather(into: Any, x: Any, **geometry: Any) -> None:
    """into[n, c, kh, kw, oh, ow] = what each tap meets at each position of [n, c, h, w]. Nothing is written where it meets
    padding."""
    for i, j, at, met in places(x.shape[2:], into.shape[2:4], **geometry):
        into[:, :, i, j, *at] = x[:, :, *met]


def patches(x: Any, kernel: Pair, xp: Any, fill: int = 0, **geometry: Any) -> Any:
    """[n, c, kh, kw, oh, ow]: what each tap meets at each position, `fill` where that is padding."""
    positions = output_size(x.shape[2:], kernel, geometry["stride"], geometry["padding"], geometry["dilation"])
    met = xp.full((*x.shape[:2], *kernel, *positions), fill, x.dtype)
    gather(met, x, **geometry)
    return met


def spread(into: Any, g: Any, **geometry: Any) -> None:
    """The way back: into[n, o, kh, kw, h, w] = the one value of [n, o, oh, ow] that each tap brings to each pixel. Nothing is
    written where it brings none."""
    for i, j, at, met in places(into.shape[4:], into.shape[2:4], **geometry):
        into[:, :, i, j, *met] = g[:, :, *at]
