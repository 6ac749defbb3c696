"""Tiles in shared memory: convolution as a product of positions and patches, of which 16 x 16 results share what they read.

Each value that is loaded serves sixteen threads; no matrix of patches is ever written. The input gradient is the same
product, once for each phase of the strides. Next limit: every multiply-add reads both its operands from shared memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.cuda_arguments import (
    DRAWN_FORMATS,
    FORMATS,
    NOTHING,
    After,
    Shape,
    cdiv,
    drawing,
    finishing,
    kernels,
    sparse_or_too_large,
    strides,
)
from ulpgrad.kernels.conv.cuda_frames import backward, forward
from ulpgrad.kernels.registry import Request, kernel

SIDE, THREADS = 16, 256  # of a tile, and of a block

FORWARD = kernels("conv_tiles.cu", "conv_tiles", "false")
INPUT_GRADIENT = kernels("conv_tiles.cu", "conv_tiles", "true")


@kernel(spec.conv2d_stochastic, "cuda/cuda-tiles", rank=50, formats=DRAWN_FORMATS, where=drawing(sparse_or_too_large),
        build=True)  # fmt: skip
@kernel(spec.conv2d_finished, "cuda/cuda-tiles", rank=50, formats=FORMATS, where=finishing, build=True)
@kernel(spec.conv2d, "cuda/cuda-tiles", rank=50, formats=FORMATS, where=sparse_or_too_large, build=True)
def conv2d(request: Request) -> Callable[..., Any]:
    chosen = FORWARD[request.formats[0]]

    def fill(shape: Shape, y: Any, x: Any, weight: Any, after: After) -> None:
        grid = (cdiv(shape.rows, SIDE), cdiv(shape.outputs, SIDE), shape.groups)
        places = (shape.argument, strides(x), strides(weight), strides(y))
        chosen.launch(grid, (THREADS, 1, 1), y, x, weight, *after.operands, *places, after.argument)

    return forward(fill)


@kernel(spec.conv2d_input_gradient, "cuda/cuda-tiles", rank=50, formats=FORMATS, where=sparse_or_too_large, build=True)
def input_gradient(request: Request) -> Callable[..., Any]:
    chosen = INPUT_GRADIENT[request.formats[0]]

    def fill(shape: Shape, dx: Any, g: Any, weight: Any) -> None:
        grid = (cdiv(shape.phase_rows, SIDE), cdiv(shape.inputs, SIDE), shape.groups * shape.phases)
        places = (shape.argument, strides(g), strides(weight), strides(dx))
        chosen.launch(grid, (THREADS, 1, 1), dx, g, weight, None, None, None, *places, NOTHING)

    return backward(fill)
