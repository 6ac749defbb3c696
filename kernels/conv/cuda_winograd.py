"""Winograd's F(2 x 2, 3 x 3), a side branch: 3 x 3 filters by 16 products for 2 x 2 results where the definition takes 36, summed
over the channels by matmul's register tiles.

It pays with its error, which is that of a filter's largest weight and not of what a result's terms are: 3.3 units (2^-24 of
the terms' absolute values) on random numbers, where the definition has 2.7, but 4,700 where a weight 2^12 times as
large as the others meets padding, where the definition has 6.3. Nobody is given it who does not ask. Next limit:
transformed images are four times the images, and go through memory.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from ulpgrad.formats import float32
from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.cuda_arguments import After, Shape, cdiv, shape_of, strides, too_large
from ulpgrad.kernels.conv.cuda_frames import forward
from ulpgrad.kernels.conv.cuda_unfold import launch, product
from ulpgrad.kernels.cuda_compile import Kernel
from ulpgrad.kernels.registry import Request, kernel

IMAGES, FILTERS, RESULTS = (
    Kernel("conv_winograd.cu", f"winograd_{name}<float>") for name in ("images", "filters", "results")
)
PRODUCTS = 16
LARGEST_SIDE = 2**28  # threads, and elements of a transformed operand, that are numbered with 31 bits


def refusal(request: Request) -> str | None:
    shape = shape_of(request)
    if (shape.kernel, shape.stride, shape.dilation, shape.groups) != ((3, 3), (1, 1), (1, 1), 1):
        return "takes filters of 3 x 3 with stride 1, without dilation and groups"
    if max(shape.rows, 1) * max(shape.inputs, shape.outputs) > LARGEST_SIDE:
        return f"takes up to {LARGEST_SIDE} positions times channels"
    return too_large(request)


@kernel(spec.conv2d, "cuda/cuda-winograd", rank=20, formats=(float32,), where=refusal, build=True)
def conv2d(_: Request) -> Callable[..., Any]:
    multiply = product(float32)

    def fill(shape: Shape, y: Any, x: Any, weight: Any, after: After) -> None:
        xp, tiles = gpu.xp(), shape.images * prod(cdiv(n, 2) for n in shape.positions)
        pixels = xp.empty((PRODUCTS, shape.inputs, tiles), x.dtype)
        filters = xp.empty((PRODUCTS, shape.outputs, shape.inputs), x.dtype)
        launch(IMAGES, pixels, shape.inputs * tiles, x, shape.argument, strides(x))
        launch(FILTERS, filters, shape.outputs * shape.inputs, weight, shape.argument, strides(weight))
        sums = multiply(filters, pixels)
        places = (shape.argument, strides(x), strides(weight), strides(y))
        launch(RESULTS, y, shape.outputs * tiles, sums, x, weight, after.bias, *places, after.activation)

    return forward(fill)
