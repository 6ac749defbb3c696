"""The definition in CUDA C++: a thread makes one result, in any layout, and results lie as their input does.

An average's gradient is gathered: a pixel sums its shares of all windows that have seen it. A maximum's goes where the
indices say, which nobody knows before: a warp adds 32 of them at a time, in a fixed order. (Indices outside the image are
passed over, since looking for them would make the program wait.) Next limit: memory, of which indices take eight bytes each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.formats import Format, bfloat16, float16, float32, float64, int64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv.cuda_arguments import WINDOW, activation_number, cdiv, images_like, strides
from ulpgrad.kernels.conv.geometry import Pair, output_size
from ulpgrad.kernels.cuda_compile import Kernel, c_type
from ulpgrad.kernels.pool import spec
from ulpgrad.kernels.registry import Request, kernel

FORMATS = (float32, float64, float16, bfloat16)
SUMMED = (float32, float64)  # in memory: narrower ones are widened first, and rounded once
THREADS, WARP = 256, 32
POOL = np.dtype([("images", np.int32), ("channels", np.int32), ("y", WINDOW), ("x", WINDOW)], align=True)


def kernels(name: str) -> dict[Format | None, Kernel]:
    return {f: Kernel("pool_direct.cu", f"{name}<{c_type(f)}>") for f in FORMATS}


MAXIMUM, AVERAGE, AVERAGE_GRADIENT = map(kernels, ("max_pool", "avg_pool", "avg_pool_gradient"))
MAXIMUM_GRADIENT: dict[Format | None, Kernel] = {
    f: Kernel("pool_scatter.cu", f"max_pool_gradient<{c_type(f)}>") for f in SUMMED
}


def pool(images: Any, size: Pair, positions: Pair, kernel_size: Pair = (1, 1), stride: Pair = (1, 1),
         padding: Pair = (0, 0), dilation: Pair = (1, 1)) -> Any:  # fmt: skip
    """The kernels' `Pool`."""
    axes = zip(size, kernel_size, stride, padding, dilation, positions, strict=True)
    return np.array((*images.shape[:2], *axes), POOL)


def launch(chosen: Kernel, results: int, *arguments: Any) -> None:
    """A thread for each result; beyond 2^39, several for a thread."""
    if results:
        chosen.launch((min(cdiv(results, THREADS), 2**31 - 1), 1, 1), (THREADS, 1, 1), *arguments)


def largest(
    chosen: Kernel,
    x: Any,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    activation: str | None = None,
) -> tuple[Any, Any]:
    """The activation of the largest value of each window, and that value's place in its image."""
    positions = output_size(x.shape[2:], kernel_size, stride, padding, dilation)
    y = images_like(x, *x.shape[:2], *positions)
    places = gpu.xp().empty_like(y, np.int64)
    geometry = pool(x, x.shape[2:], positions, kernel_size, stride, padding, dilation)
    layouts = strides(x), strides(y), strides(places)
    launch(chosen, y.size, y, places, x, geometry, *layouts, activation_number(activation))
    return y, places


@kernel(spec.max_pool2d, "cuda/cuda-direct", rank=60, formats=FORMATS, build=True)
def max_pool2d(request: Request) -> Callable[..., Any]:
    return functools.partial(largest, MAXIMUM[request.formats[0]])


@kernel(spec.max_pool2d_gradient, "cuda/cuda-direct", rank=60, formats=(*SUMMED, int64), build=True)
def max_pool2d_gradient(request: Request) -> Callable[..., Any]:
    chosen = MAXIMUM_GRADIENT[request.formats[0]]

    def run(g: Any, indices: Any, *, size: Pair) -> Any:
        dx = images_like(g, *g.shape[:2], *size)
        dx.fill(0)
        planes = g.shape[0] * g.shape[1]
        if g.size:
            grid = (min(cdiv(planes, 128 // WARP), 2**31 - 1), 1, 1)
            places = (pool(g, size, g.shape[2:]), strides(g), strides(indices), strides(dx))
            chosen.launch(grid, (128, 1, 1), dx, g, indices, *places)
        return dx

    return run


@kernel(spec.avg_pool2d, "cuda/cuda-direct", rank=60, formats=FORMATS, build=True)
def avg_pool2d(request: Request) -> Callable[..., Any]:
    chosen = AVERAGE[request.formats[0]]

    def run(x: Any, *, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> Any:
        positions = output_size(x.shape[2:], kernel_size, stride, padding, spec.ONE)
        y = images_like(x, *x.shape[:2], *positions)
        geometry = pool(x, x.shape[2:], positions, kernel_size, stride, padding)
        launch(chosen, y.size, y, x, geometry, strides(x), strides(y), np.int32(count_include_pad))
        return y

    return run


@kernel(spec.avg_pool2d_gradient, "cuda/cuda-direct", rank=60, formats=FORMATS, build=True)
def avg_pool2d_gradient(request: Request) -> Callable[..., Any]:
    chosen = AVERAGE_GRADIENT[request.formats[0]]

    def run(g: Any, *, size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> Any:
        dx = images_like(g, *g.shape[:2], *size)
        geometry = pool(g, size, g.shape[2:], kernel_size, stride, padding)
        launch(chosen, dx.size, dx, g, geometry, strides(g), strides(dx), np.int32(count_include_pad))
        return dx

    return run
