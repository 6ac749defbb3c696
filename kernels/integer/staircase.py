"""What the rungs of the teaching ladder (native_loops.py to native_panels.py) share: what they take, and the call."""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.kernels import native
from ulpgrad.kernels.integer.accumulator import INT32, as_accumulator
from ulpgrad.kernels.matmul import layout
from ulpgrad.kernels.registry import Request


def refusal(request: Request) -> str | None:
    """They teach one product: bytes into 32 bits, which wrap."""
    plain = as_accumulator(request.params.get("accumulator")) == INT32
    return None if plain else "teaches sums of 32 bits that wrap"


def product(rung: str, a: Array, b: Array) -> Array:
    a, b, shape = layout.stacks(a, b)
    c = np.empty((max(len(a), len(b)) if 0 not in shape else 0, a.shape[1], b.shape[2]), np.int32)
    for i in range(len(c)):
        c[i] = native.module().integer_matmul_ladder(rung, a[min(i, len(a) - 1)], b[min(i, len(b) - 1)])
    return c.reshape(*shape, *c.shape[1:])
