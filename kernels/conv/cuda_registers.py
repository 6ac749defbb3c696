"""Register tiles: a thread makes 8 x 4 results, so that twelve values from shared memory serve 32 multiply-adds.

Where channels lie side by side they are loaded in packets of four; the filters are laid so first. The next tile is
loaded while this one is multiplied. The weight gradient cuts its positions into slices, whose sums a second pass adds in
their order. Next limit: the multiply-add units; those for matrices do far more in the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.cuda_arguments import (
    DRAWN_FORMATS,
    FORMATS,
    NOTHING,
    After,
    Shape,
    cdiv,
    channels_last,
    drawing,
    finishing,
    is_channels_last,
    kernels,
    sparse_or_too_large,
    strides,
    too_large,
)
from ulpgrad.kernels.conv.cuda_frames import backward, forward
from ulpgrad.kernels.conv.cuda_slices import Slices, slice_count
from ulpgrad.kernels.registry import Request, kernel

ROWS, COLUMNS, THREADS = 128, 64, 256  # of a tile, as in csrc/cuda/register_tile.cuh
PACKET = 4  # channels that one instruction loads

FORWARD = kernels("conv_registers.cu", "conv_registers", "false")
INPUT_GRADIENT = kernels("conv_registers.cu", "conv_registers", "true")
WEIGHT_GRADIENT = kernels("conv_weight_registers.cu", "conv_weight_registers")


def packets(images: Any, weight: Any, channels: int) -> np.int32:
    """1 where the channels of a group can be loaded in packets: side by side, a multiple of four, and aligned."""
    aligned = images.data.ptr % 16 == weight.data.ptr % 16 == 0
    return np.int32(is_channels_last(images) and channels % PACKET == 0 and aligned)


@kernel(spec.conv2d_stochastic, "cuda/cuda-registers", rank=70, formats=DRAWN_FORMATS,
        where=drawing(sparse_or_too_large), build=True)  # fmt: skip
@kernel(spec.conv2d_finished, "cuda/cuda-registers", rank=70, formats=FORMATS, where=finishing, build=True)
@kernel(spec.conv2d, "cuda/cuda-registers", rank=70, formats=FORMATS, where=sparse_or_too_large, build=True)
def conv2d(request: Request) -> Callable[..., Any]:
    chosen = FORWARD[request.formats[0]]

    def fill(shape: Shape, y: Any, x: Any, weight: Any, after: After) -> None:
        weight = channels_last(weight, 1)
        grid = (cdiv(shape.rows, ROWS) * cdiv(shape.outputs, COLUMNS), 1, shape.groups)
        places = (shape.argument, strides(x), strides(weight), strides(y))
        how = (after.argument, packets(x, weight, shape.inputs))
        chosen.launch(grid, (THREADS, 1, 1), y, x, weight, *after.operands, *places, *how)

    return forward(fill)


@kernel(spec.conv2d_input_gradient, "cuda/cuda-registers", rank=70, formats=FORMATS, where=sparse_or_too_large,
        build=True)  # fmt: skip
def input_gradient(request: Request) -> Callable[..., Any]:
    chosen = INPUT_GRADIENT[request.formats[0]]

    def fill(shape: Shape, dx: Any, g: Any, weight: Any) -> None:
        weight = channels_last(weight, 0)
        grid = (cdiv(shape.phase_rows, ROWS) * cdiv(shape.inputs, COLUMNS), 1, shape.groups * shape.phases)
        places = (shape.argument, strides(g), strides(weight), strides(dx))
        how = (NOTHING, packets(g, weight, shape.outputs))
        chosen.launch(grid, (THREADS, 1, 1), dx, g, weight, None, None, None, *places, *how)

    return backward(fill)


@kernel(spec.conv2d_weight_gradient, "cuda/cuda-registers", rank=70, formats=FORMATS, where=too_large, build=True)
def weight_gradient(request: Request) -> Callable[..., Any]:
    form = request.formats[0]

    def run(g: Any, x: Any, **geometry: Any) -> Any:
        shape = Shape(spec.conv2d_weight_gradient, (g, x), geometry)
        if not shape.weights:
            return gpu.xp().empty((g.shape[1], shape.inputs, *shape.kernel), g.dtype)
        tiles = cdiv(shape.depth, ROWS), cdiv(shape.outputs, COLUMNS)
        slices = Slices(form, shape, slice_count(shape, tiles[0] * tiles[1] * shape.groups))
        places = (shape.argument, strides(g), strides(x), np.int32(slices.count))
        grid = (*tiles, shape.groups * slices.count)
        WEIGHT_GRADIENT[form].launch(grid, (THREADS, 1, 1), slices.parts, g, x, *places)
        return slices.sum(g, x)

    return run
