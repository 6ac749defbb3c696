"""What the CUDA C++ rungs of `matmul` share: operands as they lie, and a launch over the tiles of every product of a stack."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ulpgrad.formats import Format, bfloat16, float16, float32, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.cuda_compile import Kernel

FORMATS: tuple[Format, ...] = (float32, float64, float16, bfloat16)
SIZES = ("stacks", "m", "n", "k", "a_stack", "a_row", "a_column", "b_stack", "b_row", "b_column")
PRODUCT = np.dtype([(name, np.int64) for name in SIZES], align=True)  # Product in csrc/cuda/matmul.cuh


def multiply(
    kernel: Kernel, tile: tuple[int, int], block: tuple[int, int, int], a: Any, b: Any, shared: int = 0
) -> Any:
    """a @ b by a kernel whose blocks make tiles of c of that size."""
    xp = gpu.xp()
    shape = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    m, n, k = a.shape[-2], b.shape[-1], a.shape[-1]
    c = xp.empty((*shape, m, n), a.dtype)
    if c.size == 0:
        return c
    stacks = math.prod(shape)
    a, b = stacked(a, shape), stacked(b, shape)
    steps = [0 if len(x) == 1 and axis == 0 else x.strides[axis] // x.itemsize for x in (a, b) for axis in range(3)]
    product = np.array([(stacks, m, n, k, *steps)], PRODUCT)
    grid = (-(-m // tile[0]) * -(-n // tile[1]), min(stacks, 65535), 1)
    kernel.launch(grid, block, c, a, b, product, shared=shared)
    return c


def stacked(x: Any, shape: tuple[int, ...]) -> Any:
    """x as [stack, rows, columns], copied only where no one step leads through its stack; a stack of one serves all."""
    if math.prod(x.shape[:-2]) == 1:
        return x.reshape(1, *x.shape[-2:])
    return gpu.xp().broadcast_to(x, (*shape, *x.shape[-2:])).reshape(math.prod(shape), *x.shape[-2:])
