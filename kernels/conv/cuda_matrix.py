"""Implicit matmul on the matrix units: patches are copied straight into swizzled shared memory, and whole warps multiply.

Four tiles are in the pipeline: one is multiplied while the asynchronous copies of three are on their way. Channels are to
lie side by side in multiples of eight; images that do not are copied so first, and results go back to the layout of the
input as they are written. The input gradient is the same kernel on the filters from the side of their inputs, once for
each phase of the strides; the weight gradient sums slices of the positions, which a second pass adds in their order. One
source serves sm_80 and all later ones. Next limit: mma.sync reaches some 60 % of what the matrix units of an H100 can do,
whose own instructions take operands from shared memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.formats import Format, bfloat16, float16
from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.cuda_arguments import (
    Shape,
    activation_number,
    cdiv,
    channels_last,
    is_channels_last,
    shape_of,
    sparse_or_too_large,
    strides,
    too_large,
)
from ulpgrad.kernels.conv.cuda_frames import backward, forward
from ulpgrad.kernels.conv.cuda_slices import Slices
from ulpgrad.kernels.cuda_compile import Kernel, c_type
from ulpgrad.kernels.registry import Request, kernel

FORMATS = (float16, bfloat16)
SINCE = 80  # compute capability
ROWS, WIDTHS, DEPTH, STAGES = 128, (64, 128), 32, 4  # of a tile, as in csrc/cuda/matrix_tile.cuh
CHUNK = 8  # channels that one asynchronous copy moves
MANY = 132  # tiles that keep the processors of a large GPU busy


def kernels(source: str, name: str, *options: str) -> dict[tuple[Format | None, int], Kernel]:
    return {
        (f, columns): Kernel(source, f"{name}<{', '.join((c_type(f), *options, str(columns)))}>", since=SINCE)
        for f in FORMATS
        for columns in WIDTHS
    }


FORWARD = kernels("conv_matrix.cu", "conv_matrix", "false")
INPUT_GRADIENT = kernels("conv_matrix.cu", "conv_matrix", "true")
WEIGHT_GRADIENT = kernels("conv_weight_matrix.cu", "conv_weight_matrix")


def threads(columns: int) -> tuple[int, int, int]:
    """A warp for each 64 x 32 results of a tile."""
    return 2 * columns, 1, 1


def shared_bytes(columns: int) -> int:
    """For the tiles of all stages, and later for the sums, whose lines are padded."""
    return max(STAGES * DEPTH * (ROWS + columns) * 2, ROWS * (columns + 8) * 4)


def width(rows: int, columns: int, others: int) -> int:
    """Columns of a tile: wide ones read less, narrow ones give more processors work, or waste less of the last tile."""
    narrow, wide = WIDTHS
    few = cdiv(rows, ROWS) * cdiv(columns, wide) * others < MANY
    return narrow if few or (columns - 1) % wide < narrow else wide


def padded(array: Any, axis: int) -> Any:
    """Zeros behind the channels of `axis`, up to a multiple of CHUNK."""
    missing = -array.shape[axis] % CHUNK
    if not missing:
        return array
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, missing)
    return gpu.xp().pad(array, widths)


def laid(images: Any) -> Any:
    """Images whose channels lie side by side, in chunks that are aligned: a copy where they do not."""
    images = padded(images, 1)
    if not (is_channels_last(images) or images.shape[1] == 1) or images.data.ptr % 16:
        images = gpu.xp().ascontiguousarray(images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    return images


def refusal(request: Request) -> str | None:
    """Why matrix units are no good for the call, or None."""
    shape = shape_of(request)
    read = (shape.outputs, shape.inputs) if request.op is spec.conv2d_weight_gradient else (
        (shape.inputs,) if request.op is spec.conv2d else (shape.outputs,)
    )  # fmt: skip
    if shape.groups > 1 and any(channels % CHUNK for channels in read):
        return f"takes groups of a multiple of {CHUNK} channels, not {' and '.join(map(str, read))}"
    reason = next(iter(FORWARD.values())).refusal()
    if reason is None:
        reason = too_large(request) if request.op is spec.conv2d_weight_gradient else sparse_or_too_large(request)
    return reason


@kernel(spec.conv2d, "cuda/cuda-matrix", rank=90, formats=FORMATS, where=refusal, build=True)
def conv2d(request: Request) -> Callable[..., Any]:
    form = request.formats[0]

    def fill(shape: Shape, y: Any, x: Any, weight: Any, bias: Any, activation: Any) -> None:
        x, weight = laid(x), channels_last(padded(weight, 1), 1)
        shape = shape.of(x, weight)
        columns = width(shape.rows, shape.outputs, shape.groups)
        grid = (cdiv(shape.rows, ROWS) * cdiv(shape.outputs, columns), 1, shape.groups)
        places = (shape.argument, strides(x), strides(weight), strides(y))
        FORWARD[form, columns].launch(
            grid, threads(columns), y, x, weight, bias, *places, activation, shared=shared_bytes(columns)
        )

    return forward(fill)


@kernel(spec.conv2d_input_gradient, "cuda/cuda-matrix", rank=90, formats=FORMATS, where=refusal, build=True)
def input_gradient(request: Request) -> Callable[..., Any]:
    form = request.formats[0]

    def fill(shape: Shape, dx: Any, g: Any, weight: Any) -> None:
        g, weight = laid(g), channels_last(padded(weight, 0), 0)
        shape = shape.of(g, weight)
        columns = width(shape.phase_rows, shape.inputs, shape.groups * shape.phases)
        grid = (cdiv(shape.phase_rows, ROWS) * cdiv(shape.inputs, columns), 1, shape.groups * shape.phases)
        places = (shape.argument, strides(g), strides(weight), strides(dx))
        INPUT_GRADIENT[form, columns].launch(
            grid, threads(columns), dx, g, weight, None, *places, activation_number(None), shared=shared_bytes(columns)
        )

    return backward(fill)


@kernel(spec.conv2d_weight_gradient, "cuda/cuda-matrix", rank=90, formats=FORMATS, where=refusal, build=True)
def weight_gradient(request: Request) -> Callable[..., Any]:
    form = request.formats[0]

    def run(g: Any, x: Any, **geometry: Any) -> Any:
        outputs, inputs = g.shape[1], x.shape[1] // geometry["groups"]
        g, x = laid(g), laid(x)
        shape = Shape(spec.conv2d_weight_gradient, (g, x), geometry)
        if not shape.weights:
            return gpu.xp().empty((outputs, inputs, *shape.kernel), g.dtype)
        columns = width(shape.outputs, shape.depth, shape.groups)
        tiles = cdiv(shape.outputs, ROWS), cdiv(shape.depth, columns)
        slices = Slices(form, shape, tiles[0] * tiles[1] * shape.groups)
        places = (shape.argument, strides(g), strides(x), np.int32(slices.count))
        grid = (*tiles, shape.groups * slices.count)
        chosen = WEIGHT_GRADIENT[form, columns]
        chosen.launch(grid, threads(columns), slices.parts, g, x, *places, shared=shared_bytes(columns))
        return gpu.contiguous(slices.sum(g.dtype)[:outputs, :inputs])

    return run
