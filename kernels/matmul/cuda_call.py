"""What the CUDA C++ rungs of `matmul` share: operands as they lie, and a launch over the tiles of every product of a stack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ulpgrad.formats import INTEGERS, Format, bfloat16, float16, float32, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.cuda_compile import Kernel, c_type

FLOATS: tuple[Format, ...] = (float32, float64, float16, bfloat16)
FORMATS = (*FLOATS, *INTEGERS)
SIZES = ("stacks", "m", "n", "k", "a_stack", "a_row", "a_column", "b_stack", "b_row", "b_column")
PRODUCT = np.dtype([(name, np.int64) for name in SIZES], align=True)  # Product in csrc/cuda/matmul.cuh


def kernels(source: str, name: str, *options: str, formats: Sequence[Format] = FORMATS) -> dict[Format, Kernel]:
    """The kernel of that name for each format; formats that are one type in C++ share it."""
    made = {
        kind: Kernel(source, f"{name}<{', '.join((kind, *options))}>") for kind in dict.fromkeys(map(c_type, formats))
    }
    return {f: made[c_type(f)] for f in formats}


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
