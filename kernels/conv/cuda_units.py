"""What the rungs of convolution on matrix units share: tiles, layouts that they take, and the three launches."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from ulpgrad.formats import Format
from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.cuda_arguments import (
    MOST_NUMBERED,
    NOTHING,
    After,
    Shape,
    cdiv,
    channels_last,
    shape_of,
    sparse_or_too_large,
    strides,
    too_large,
)
from ulpgrad.kernels.conv.cuda_frames import backward, forward
from ulpgrad.kernels.conv.cuda_slices import Slices, slice_count
from ulpgrad.kernels.cuda_compile import Kernel, c_type
from ulpgrad.kernels.registry import Request

SINCE = 80  # compute capability
ROWS, WIDTHS, LINE, STAGES = 128, (64, 128), 64, 4  # of a tile, lines in bytes, as in csrc/cuda/matrix_tile.cuh
PACKET = 16  # bytes that one asynchronous copy moves
MANY = 132  # tiles that keep the processors of a large GPU busy

Kernels = dict[int, Kernel]  # by the columns of a tile

TILE, LAID = 2048, (8, 64)  # values of a tile of images that are laid otherwise, and channels of one
LAY = {
    (size, columns): Kernel("conv_lay.cu", f"lay_channels_last<{name}, {columns}>")
    for size, name in ((2, "unsigned short"), (4, "unsigned"))
    for columns in LAID
}


def kernels(form: Format, source: str, name: str, *options: str) -> Kernels:
    """name<type, options..., columns> of csrc/cuda for each width of a tile."""
    return {
        columns: Kernel(source, f"{name}<{', '.join((c_type(form), *options, str(columns)))}>", since=SINCE)
        for columns in WIDTHS
    }


def threads(columns: int) -> tuple[int, int, int]:
    """A warp for each 64 x 32 results of a tile."""
    return 2 * columns, 1, 1


def shared_bytes(columns: int) -> int:
    """For the tiles of all stages, and later for the sums, whose lines are padded."""
    return max(STAGES * LINE * (ROWS + columns), ROWS * (columns + 8) * 4)


def width(rows: int, columns: int, others: int) -> int:
    """Columns of a tile: wide ones read less, narrow ones give more processors work, or waste less of the last tile."""
    narrow, wide = WIDTHS
    few = cdiv(rows, ROWS) * cdiv(columns, wide) * others < MANY
    return narrow if few or (columns - 1) % wide < narrow else wide


def padded(array: Any, axis: int) -> Any:
    """Zeros behind the channels of `axis`, up to a multiple of what one copy moves."""
    missing = -array.shape[axis] % (PACKET // array.itemsize)
    if not missing:
        return array
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, missing)
    return gpu.xp().pad(array, widths)


def laid(images: Any) -> Any:
    """Images whose channels lie side by side, in whole chunks that are aligned: where they do not, a copy, made in one pass."""
    n, channels, *size = images.shape
    chunk, last = PACKET // images.itemsize, images.transpose(0, 2, 3, 1)
    filled = cdiv(channels, chunk) * chunk
    if filled == channels and last.flags.c_contiguous and last.data.ptr % PACKET == 0:
        return images
    out = gpu.xp().empty((n, *size, filled), images.dtype)
    if out.size:
        columns = next(c for c in LAID if filled <= c or c == LAID[-1])
        count = n * prod(size)
        grid = (cdiv(count, TILE // columns) * cdiv(filled, columns), 1, 1)
        numbers = map(np.int32, (count, *size, channels, filled))
        LAY[images.itemsize, columns].launch(grid, (256, 1, 1), out, images, *numbers, strides(images))
    return out.transpose(0, 3, 1, 2)


def too_deep(shape: Shape, channels: int, chunk: int) -> str | None:
    """Why the values of a filter cannot be numbered once its channels are whole chunks; None if they can."""
    values = cdiv(channels, chunk) * chunk * prod(shape.kernel)
    if values <= MOST_NUMBERED:
        return None
    return f"takes filters of up to {MOST_NUMBERED} values, where channels are multiples of {chunk}, not {values}"


def refusal(request: Request, units: Kernel) -> str | None:
    """Why matrix units are no good for the call, or None."""
    shape, chunk = shape_of(request), PACKET // request.arrays[0].itemsize
    read = (shape.outputs, shape.inputs) if request.op is spec.conv2d_weight_gradient else (
        (shape.inputs,) if request.op in spec.FORWARD else (shape.outputs,)
    )  # fmt: skip
    if shape.groups > 1 and any(channels % chunk for channels in read):
        return f"takes groups of a multiple of {chunk} channels, not {' and '.join(map(str, read))}"
    reason = units.refusal() or too_deep(shape, max(read), chunk)
    if reason is None:
        reason = too_large(request) if request.op is spec.conv2d_weight_gradient else sparse_or_too_large(request)
    return reason


def conv2d(kernels: Kernels) -> Callable[..., Any]:
    def fill(shape: Shape, y: Any, x: Any, weight: Any, after: After) -> None:
        x, weight = laid(x), channels_last(padded(weight, 1), 1)
        shape = shape.of(x, weight)
        columns = width(shape.rows, shape.outputs, shape.groups)
        grid = (cdiv(shape.rows, ROWS) * cdiv(shape.outputs, columns), 1, shape.groups)
        places = (shape.argument, strides(x), strides(weight), strides(y))
        kernels[columns].launch(
            grid, threads(columns), y, x, weight, *after.operands, *places, after.argument, shared=shared_bytes(columns)
        )

    return forward(fill)


def input_gradient(kernels: Kernels) -> Callable[..., Any]:
    def fill(shape: Shape, dx: Any, g: Any, weight: Any) -> None:
        g, weight = laid(g), channels_last(padded(weight, 0), 0)
        shape = shape.of(g, weight)
        columns = width(shape.phase_rows, shape.inputs, shape.groups * shape.phases)
        grid = (cdiv(shape.phase_rows, ROWS) * cdiv(shape.inputs, columns), 1, shape.groups * shape.phases)
        places = (shape.argument, strides(g), strides(weight), strides(dx))
        kernels[columns].launch(
            grid, threads(columns), dx, g, weight, None, None, None, *places, NOTHING, shared=shared_bytes(columns)
        )

    return backward(fill)


def weight_gradient(form: Format, kernels: Kernels, checked: bool = False) -> Callable[..., Any]:
    """`checked`: what is not finite is summed again by the definition."""

    def run(g: Any, x: Any, **geometry: Any) -> Any:
        outputs, inputs = g.shape[1], x.shape[1] // geometry["groups"]
        g, x = laid(g), laid(x)
        shape = Shape(spec.conv2d_weight_gradient, (g, x), geometry)
        if not shape.weights:
            return gpu.xp().empty((outputs, inputs, *shape.kernel), g.dtype)
        columns = width(shape.outputs, shape.depth, shape.groups)
        tiles = cdiv(shape.outputs, ROWS), cdiv(shape.depth, columns)
        slices = Slices(form, shape, slice_count(shape, tiles[0] * tiles[1] * shape.groups))
        places = (shape.argument, strides(g), strides(x), np.int32(slices.count))
        grid = (tiles[0] * tiles[1], 1, shape.groups * slices.count)
        kernels[columns].launch(grid, threads(columns), slices.parts, g, x, *places, shared=shared_bytes(columns))
        return gpu.contiguous(slices.sum(g, x, checked)[:outputs, :inputs])

    return run


__all__ = [
    "PACKET",
    "ROWS",
    "SINCE",
    "WIDTHS",
    "Kernels",
    "conv2d",
    "input_gradient",
    "kernels",
    "refusal",
    "shared_bytes",
    "threads",
    "too_deep",
    "weight_gradient",
    "width",
]
