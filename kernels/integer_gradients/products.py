"""Both gradients on the products and convolutions of integers that a device has, whatever those are: what all rungs share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ulpgrad.formats import as_format
from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv.geometry import Pair
from ulpgrad.kernels.copy.into import copied, copy_into
from ulpgrad.kernels.integer import spec as integer
from ulpgrad.kernels.integer.accumulator import as_accumulator, is_plain
from ulpgrad.kernels.integer_gradients import spec
from ulpgrad.kernels.steps import best_on

BLOCK = 1 << 22  # bytes of columns at a time


def module_on(device: str) -> Any:
    """The library of a device's arrays."""
    return np if device == "cpu" else gpu.xp()


def _matmul(device: str, accumulator: Any, a: Any, b: Any) -> Any:
    forms = as_format(a.dtype), as_format(b.dtype)
    run = best_on(device, "integer_matmul", forms, a, b, accumulator=accumulator)
    return run(a, b, accumulator=accumulator)


def _blocks(images: int, bytes_each: int) -> Iterator[slice]:
    """All images, so many at a time that their columns fit a block; 0: at once."""
    each = max(1, BLOCK // bytes_each if bytes_each else images)
    return (slice(first, first + each) for first in range(0, images, each))


def input_gradient(device: str, g: Any, weight: Any, *, size: Pair, accumulator: Any = None, **params: Any) -> Any:
    """By columns of what filters bring to pixels, some images at a time."""
    xp, matmul = module_on(device), partial(_matmul, device, accumulator)
    shape = (len(g), weight.shape[1] * params["groups"], *size)
    found = xp.zeros(shape, integer.result_dtype(accumulator))
    each = g.shape[1] * math.prod(weight.shape[2:]) * math.prod(size) * g.itemsize
    is_whole = as_accumulator(accumulator).overflow == "raise"  # and names the image
    for some in _blocks(len(g), 0 if is_whole else each):
        part = g[some]
        found[some] = spec.input_gradient(part, weight, matmul, size=size, accumulator=accumulator, xp=xp, **params)
    return found


def weight_gradient(
    device: str,
    g: Any,
    x: Any,
    *,
    size: Pair,
    accumulator: Any = None,
    columns: spec.Columns | None = None,
    **params: Any,
) -> Any:
    """By columns of what filters have met; where the order is free some images at a time, whose sums are added."""
    xp, matmul = module_on(device), partial(_matmul, device, accumulator)
    how = {"size": size, "accumulator": accumulator, "columns": columns or partial(spec.columns, xp=xp), **params}
    each = x.shape[1] * math.prod(size) * math.prod(g.shape[2:]) * x.itemsize
    blocks = list(_blocks(len(g), each if is_plain(accumulator) else 0)) or [slice(0, 0)]
    found = None
    for some in blocks:
        part = spec.weight_gradient(g[some], x[some], matmul, **how)
        found = part if found is None else xp.add(found, part, out=found)
    return found


class Phase(NamedTuple):
    """Pixels of one axis that the same taps bring something to: so many from `first` on, a stride apart; the taps; the
    row of g that the last tap brings to the first of these pixels; and how far apart the rows are that two taps bring."""

    first: int
    pixels: int
    taps: tuple[int, ...]
    row: int
    apart: int

    @property
    def turned(self) -> slice:
        """The taps, from the last to the first."""
        step = self.taps[1] - self.taps[0] if len(self.taps) > 1 else 1
        before = self.taps[0] - step
        return slice(self.taps[-1], before if before >= 0 else None, -step)

    @property
    def span(self) -> int:
        """Rows of g that are brought."""
        return self.apart * (len(self.taps) - 1) + self.pixels


def phases(pixels: int, kernel: int, stride: int, padding: int, dilation: int) -> list[Phase]:
    """The phases of a stride along one axis, without those that no tap brings anything to."""
    found = []
    for first in range(min(stride, pixels)):
        taps = tuple(i for i in range(kernel) if (first + padding - i * dilation) % stride == 0)
        if taps:
            apart = (taps[1] - taps[0]) * dilation // stride if len(taps) > 1 else 1
            row = (first + padding - taps[-1] * dilation) // stride
            found.append(Phase(first, (pixels - 1 - first) // stride + 1, taps, row, apart))
    return found


def input_gradient_by_phases(
    device: str, g: Any, weight: Any, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int,
    accumulator: Any = None,
) -> Any:  # fmt: skip
    """Each phase of the stride is a convolution of g, by the taps that belong to it, turned round."""
    xp, (n, o), (_, c, *kernel) = module_on(device), g.shape[:2], weight.shape
    rows, columns = (phases(*axis) for axis in zip(size, kernel, stride, padding, dilation, strict=True))
    forms = as_format(g.dtype), as_format(weight.dtype)
    by_group = weight.reshape(groups, o // groups, c, *kernel).swapaxes(1, 2)

    def convolved(given: Any, around: Pair, i: Phase, j: Phase) -> Any:
        filters = copied(by_group[..., i.turned, j.turned]).reshape(groups * c, o // groups, len(i.taps), len(j.taps))
        how = {"stride": (1, 1), "padding": around, "dilation": (i.apart, j.apart), "groups": groups,
               "accumulator": accumulator}  # fmt: skip
        return best_on(device, "integer_conv2d", forms, given, filters, **how)(given, filters, **how)

    is_one = stride == (1, 1) and rows and columns and 0 not in (n, o, c, *size)
    if is_one and rows[0].row <= 0 and columns[0].row <= 0:  # g's padding is the same on both sides
        return convolved(g, (-rows[0].row, -columns[0].row), rows[0], columns[0])
    found = xp.zeros((n, c * groups, *size), integer.result_dtype(accumulator))
    if not found.size or not o or not rows or not columns:
        return found
    around = [
        (max(0, *(-p.row for p in axis)), max(0, *(p.row + p.span - count for p in axis)))
        for axis, count in zip((rows, columns), g.shape[2:], strict=True)
    ]
    g = xp.pad(g, ((0, 0), (0, 0), *around))
    for i in rows:
        for j in columns:
            top, left = i.row + around[0][0], j.row + around[1][0]
            part = convolved(g[:, :, top : top + i.span, left : left + j.span], (0, 0), i, j)
            copy_into(found[:, :, i.first :: stride[0], j.first :: stride[1]], part)
    return found
