"""What the C++ rungs of the teaching ladder share: each takes one pair of contiguous float32 matrices; stacks go pair by pair."""

from __future__ import annotations

import math

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.kernels import native
from ulpgrad.kernels.matmul import layout


def multiply(rung: str, a: Array, b: Array) -> Array:
    """a @ b by the rung of csrc/cpu/ladder of that name."""
    run = native.module().matmul_ladder
    lefts, rights, shape = layout.stacks(a, b)
    pairs = ((lefts[min(s, len(lefts) - 1)], rights[min(s, len(rights) - 1)]) for s in range(math.prod(shape)))
    products = [run(rung, left, right) for left, right in pairs]
    out = products[0] if len(products) == 1 else np.array(products, a.dtype)
    return out.reshape(*shape, a.shape[-2], b.shape[-1])
