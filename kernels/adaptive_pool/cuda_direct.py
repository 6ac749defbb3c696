"""The definition in CUDA C++: a thread makes one result, in any layout, and results lie as their input does.

Windows that are all alike go to avg_pool2d's and max_pool2d's kernels. The mean of whole rows is the work of a warp, in the tree
of the CPU's reductions, or of a thread where channels lie side by side. Sums are added in the CPU's order: its bits. Next limit:
overlapping windows read the image several times, from the cache.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.formats import Format
from ulpgrad.kernels import gpu
from ulpgrad.kernels.adaptive_pool import spec
from ulpgrad.kernels.conv.cuda_arguments import cdiv, images_like, is_channels_last, strides
from ulpgrad.kernels.conv.geometry import Pair
from ulpgrad.kernels.cuda_compile import Kernel, c_type
from ulpgrad.kernels.pool import cuda_direct as pool
from ulpgrad.kernels.pool.cuda_direct import FORMATS
from ulpgrad.kernels.registry import Request, kernel

WARPS = 4  # of a block, each with a plane of its own
NO, ONE = (0, 0), (1, 1)


def kernels(name: str) -> dict[Format | None, Kernel]:
    return {f: Kernel("pool_adaptive.cu", f"{name}<{c_type(f)}>") for f in FORMATS}


MAXIMUM, AVERAGE = kernels("adaptive_max_pool"), kernels("adaptive_avg_pool")
AVERAGE_GRADIENT, RUNS = kernels("adaptive_avg_pool_gradient"), kernels("avg_pool_runs")


def runs(chosen: Kernel, x: Any, windows: int) -> Any:
    """The means of contiguous images in so many windows of whole rows."""
    y = gpu.xp().empty((*x.shape[:2], windows, 1), x.dtype)
    if y.size:
        blocks = min(cdiv(y.size, WARPS), 2**31 - 1)
        chosen.launch((blocks, 1, 1), (32 * WARPS, 1, 1), y, x, np.int64(y.size), np.int64(x.size // y.size))
    return y


@kernel(spec.adaptive_avg_pool2d, "cuda/cuda-direct", rank=60, formats=FORMATS, build=True)
def adaptive_avg_pool2d(request: Request) -> Callable[..., Any]:
    form = request.formats[0]

    def run(x: Any, *, output_size: Pair) -> Any:
        size = spec.alike(x.shape[2:], output_size)
        if size is not None and output_size[1] == 1 and not is_channels_last(x):
            return runs(RUNS[form], gpu.contiguous(x), output_size[0])
        y = images_like(x, *x.shape[:2], *output_size)
        if size is None:
            geometry = pool.pool(x, x.shape[2:], output_size)
            pool.launch(AVERAGE[form], y.size, y, x, geometry, strides(x), strides(y))
        else:
            geometry = pool.pool(x, x.shape[2:], output_size, size, size)
            pool.launch(pool.AVERAGE[form], y.size, y, x, geometry, strides(x), strides(y), np.int32(1))
        return y

    return run


@kernel(spec.adaptive_avg_pool2d_gradient, "cuda/cuda-direct", rank=60, formats=FORMATS, build=True)
def adaptive_avg_pool2d_gradient(request: Request) -> Callable[..., Any]:
    form = request.formats[0]

    def run(g: Any, *, size: Pair) -> Any:
        dx, window = images_like(g, *g.shape[:2], *size), spec.alike(size, g.shape[2:])
        if window is None:
            geometry = pool.pool(g, size, g.shape[2:])
            pool.launch(AVERAGE_GRADIENT[form], dx.size, dx, g, geometry, strides(g), strides(dx))
        else:
            geometry = pool.pool(g, size, g.shape[2:], window, window)
            pool.launch(pool.AVERAGE_GRADIENT[form], dx.size, dx, g, geometry, strides(g), strides(dx), np.int32(1))
        return dx

    return run


def largest(alike: Kernel, uneven: Kernel, x: Any, *, output_size: Pair) -> tuple[Any, Any]:
    size = spec.alike(x.shape[2:], output_size)
    if size is not None:
        return pool.largest(alike, x, size, size, NO, ONE)
    y = images_like(x, *x.shape[:2], *output_size)
    places = gpu.xp().empty_like(y, np.int64)
    pool.launch(
        uneven, y.size, y, places, x, pool.pool(x, x.shape[2:], output_size), strides(x), strides(y), strides(places)
    )
    return y, places


@kernel(spec.adaptive_max_pool2d, "cuda/cuda-direct", rank=60, formats=FORMATS, build=True)
def adaptive_max_pool2d(request: Request) -> Callable[..., Any]:
    form = request.formats[0]
    return functools.partial(largest, pool.MAXIMUM[form], MAXIMUM[form])
