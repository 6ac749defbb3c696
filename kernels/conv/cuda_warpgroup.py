"""Implicit matmul on the matrix units of sm_90, which read both operands from shared memory themselves: one thread has the copy
unit bring them, two warp groups multiply, and a block stays for many tiles.

A tile is 128 positions x 64, 128 or 256 channels, in steps of 64 channels under one tap. The copy unit walks along the images
as windows do (im2col), so that a step's patches are one copy and its filters another; barriers in shared memory say when a
stage of the pipeline is full, and when it may be filled again. Nobody computes addresses. A block makes one tile after the
other, and the copies for the next run while the results of one are finished and stored, as the other rungs do it. The input
gradient is the same on filters from the side of their inputs, in a launch for each phase of the strides: the pixels of a phase
are walked along by themselves, under the taps that have read them.

It has run on the host, where the units do as NVIDIA documents them, but not on a GPU: it is ranked below `cuda-matrix`, and taken
only where it is asked for. Next limit: each block reads filters by itself that its neighbours read too, where a cluster of
blocks would share them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import gcd, prod
from typing import Any, NamedTuple

import numpy as np

from ulpgrad.formats import Format, bfloat16, float16
from ulpgrad.kernels import cuda_tensor_map as maps, gpu
from ulpgrad.kernels.conv import cuda_units as units, spec
from ulpgrad.kernels.conv.cuda_arguments import (
    NOTHING,
    After,
    Shape,
    cdiv,
    channels_last,
    drawing,
    shape_of,
    strides,
)
from ulpgrad.kernels.conv.cuda_frames import backward, forward
from ulpgrad.kernels.cuda_compile import Kernel, c_type
from ulpgrad.kernels.registry import Request, kernel

FORMATS = (float16, bfloat16)
ROWS, WIDTHS, DEPTH, THREADS = 128, (64, 128, 256), 64, 384  # as `GroupTile` of csrc/cuda/warpgroup_tile.cuh has them
LINE, WARPS, PITCH = 128, 8, 8  # bytes of a step, warps that multiply, padding of a line of sums
MANY = 132  # tiles that keep the processors of a large GPU busy
MOST_TILES = 2**31 - 1
MOST_PHASES = 64  # launches for one input gradient
ITEM = 2  # bytes


def kernels(gradient: str) -> dict[Format | None, units.Kernels]:
    return {
        form: {
            columns: Kernel(
                "conv_warpgroup.cu", f"conv_warpgroup<{c_type(form)}, {gradient}, {columns}>", since=90, only="sm_90a"
            )
            for columns in WIDTHS
        }
        for form in FORMATS
    }


FORWARD, INPUT_GRADIENT = kernels("false"), kernels("true")


def shared_bytes(columns: int) -> int:
    """For the stages of the pipeline, and a slice of sums for each warp."""
    stages = 3 if columns == 256 else 4
    return stages * LINE * (ROWS + columns) + WARPS * 16 * (min(columns, 128) + PITCH) * 4


def width(rows: int, columns: int, others: int) -> int:
    """Columns of a tile: the widest of which enough processors get one, and whose last one is not mostly empty."""
    for wide in reversed(WIDTHS[1:]):
        if cdiv(rows, ROWS) * cdiv(columns, wide) * others >= MANY and (columns - 1) % wide >= wide // 2:
            return wide
    return WIDTHS[0]


class Walk(NamedTuple):
    """One axis of the images that are read: position p sees first + p * stride + t * step by tap t."""

    positions: int
    taps: int
    first: int
    stride: int
    step: int


def phase_walk(size: int, kernel: int, stride: int, padding: int, dilation: int, phase: int) -> Walk | None:
    """Pixels phase, phase + stride, ... of an axis, which see the positions that have read them; None where no tap has. As
    `gradient_axis` of csrc/cuda/conv_index.cuh has it."""
    divisor = gcd(stride, dilation)
    cycle, from_first = stride // divisor, phase + padding
    for tap in range(min(cycle, kernel)):
        first, rest = divmod(from_first - tap * dilation, stride)
        if not rest:
            return Walk(
                (size - 1 - phase) // stride + 1, (kernel - 1 - tap) // cycle + 1, first, 1, -(dilation // divisor)
            )
    return None


Walks = tuple[Walk, Walk]


def walks(shape: Shape) -> list[Walks | None]:
    """That of the forward pass and of the weight gradient, or one for each phase of the strides, in the kernel's order; None
    where nothing is read."""
    axes = list(zip(shape.size, shape.kernel, shape.stride, shape.padding, shape.dilation, strict=True))
    if shape.op is not spec.conv2d_input_gradient:
        y, x = (Walk(count, k, -p, s, d) for count, (_, k, s, p, d) in zip(shape.positions, axes, strict=True))
        return [(y, x)]
    rows, columns = ([phase_walk(*axis, phase) for phase in range(min(axis[2], axis[0]))] for axis in axes)
    return [None if y is None or x is None else (y, x) for y, x in product(rows, columns)]


def pixels(shape: Shape, walks: Walks, count: int = ROWS) -> maps.Pixels:
    """What is told of the images that are read, `count` positions at once: those of the forward pass, or the gradient of its
    results."""
    is_backward = shape.op is spec.conv2d_input_gradient
    channels, sizes = (shape.outputs, shape.positions) if is_backward else (shape.inputs, shape.size)
    (top, bottom, down), (left, right, across) = (
        maps.walk(size, w.positions, w.taps, w.first, w.stride, w.step) for size, w in zip(sizes, walks, strict=True)
    )
    height, columns = sizes
    padded = shape.groups * channels
    padded += -padded % (units.PACKET // ITEM)
    pixel = padded * ITEM
    return maps.Pixels(
        (padded, columns, height, shape.images), (pixel, columns * pixel, height * columns * pixel), (left, top),
        (right, bottom), (walks[1].stride, walks[0].stride), (across, down), DEPTH, count,
    )  # fmt: skip


def filters(shape: Shape, columns: int) -> maps.Tiles:
    """What is told of the filters, which lie as (results' channels, taps, channels that are summed over)."""
    taps = prod(shape.kernel)
    read, written = (shape.inputs, shape.groups * shape.outputs)
    if shape.op not in spec.FORWARD:
        read, written = shape.groups * shape.outputs, shape.inputs
    read += -read % (units.PACKET // ITEM)
    return maps.Tiles((read, taps, written), (read * ITEM, taps * read * ITEM), (DEPTH, 1, columns))


def refusal(request: Request) -> str | None:
    shape, kernel = shape_of(request), FORWARD[float16][WIDTHS[0]]
    reason = units.refusal(request, kernel)
    if reason is not None:
        return reason
    is_forward = request.op in spec.FORWARD
    if not is_forward and shape.phases > MOST_PHASES:
        return f"takes input gradients of up to {MOST_PHASES} phases of the strides, not {shape.phases}"
    read, rows, columns = (
        (shape.inputs, shape.rows, shape.outputs) if is_forward else (shape.outputs, shape.phase_rows, shape.inputs)
    )
    if shape.groups > 1 and read % DEPTH:
        return f"takes groups of a multiple of {DEPTH} channels, not {read}"
    if cdiv(rows, ROWS) * cdiv(columns, WIDTHS[0]) > MOST_TILES:
        return f"makes up to {MOST_TILES} tiles"
    reasons = (pixels(shape, each).refusal() for each in walks(shape) if each is not None)
    return next((reason for reason in reasons if reason), None) or filters(shape, WIDTHS[0]).refusal()


def launch(chosen: units.Kernels, form: Format, shape: Shape, columns: int, y: Any, x: Any, weight: Any,
           after: After | None) -> None:  # fmt: skip
    """A block for each processor at most, which goes through the tiles of its group; for each phase of the strides."""
    operands, finish = ((None, None, None), NOTHING) if after is None else (after.operands, after.argument)
    places = (shape.argument, strides(x), strides(weight), strides(y), finish)
    for phase, each in enumerate(walks(shape)):
        if each is None:
            continue
        rows = shape.images * each[0].positions * each[1].positions
        wide = width(rows, columns, shape.groups)
        tiles = cdiv(rows, ROWS) * cdiv(columns, wide)
        grid = (min(tiles, cdiv(gpu.processors(), shape.groups)), 1, shape.groups)
        copies = maps.argument(pixels(shape, each), x, form), maps.argument(filters(shape, wide), weight, form)
        chosen[wide].launch(grid, (THREADS, 1, 1), y, x, weight, *operands, *places, np.int32(phase), *copies,
                            shared=shared_bytes(wide))  # fmt: skip


@kernel(spec.conv2d_stochastic, "cuda/cuda-warpgroup", rank=85, formats=FORMATS, where=drawing(refusal), build=True)
@kernel(spec.conv2d_finished, "cuda/cuda-warpgroup", rank=85, formats=FORMATS, where=refusal, build=True)
@kernel(spec.conv2d, "cuda/cuda-warpgroup", rank=85, formats=FORMATS, where=refusal, build=True)
def conv2d(request: Request) -> Callable[..., Any]:
    form = request.formats[0]
    assert form is not None

    def fill(shape: Shape, y: Any, x: Any, weight: Any, after: After) -> None:
        x, weight = units.laid(x), channels_last(units.padded(weight, 1), 1)
        shape = shape.of(x, weight)
        launch(FORWARD[form], form, shape, shape.outputs, y, x, weight, after)

    return forward(fill)


@kernel(spec.conv2d_input_gradient, "cuda/cuda-warpgroup", rank=85, formats=FORMATS, where=refusal, build=True)
def input_gradient(request: Request) -> Callable[..., Any]:
    form = request.formats[0]
    assert form is not None

    def fill(shape: Shape, dx: Any, g: Any, weight: Any) -> None:
        g, weight = units.laid(g), channels_last(units.padded(weight, 0), 0)
        shape = shape.of(g, weight)
        if None in walks(shape):
            dx[...] = 0  # pixels that no window has seen
        launch(INPUT_GRADIENT[form], form, shape, shape.inputs, dx, g, weight, None)

    return backward(fill)
