"""Integers, which wrap: sums in the operands' own width give the same bits as wide sums cut off at the end, and vectors
hold more of them. Next limit: 8-bit products one by one, where the CPU has instructions for four at a time."""

from __future__ import annotations

from ulpgrad.formats import INTEGERS, Array
from ulpgrad.kernels.matmul import layout, spec
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.registry import kernel


@jit(parallel=True)
def multiply(a: Array, b: Array, c: Array) -> None:
    """c += a @ b, in c's width."""
    stack, m, n = c.shape
    for task in prange(stack * m):
        s, i = task // m, task % m
        left, right, row = a[min(s, len(a) - 1), i], b[min(s, len(b) - 1)], c[s, i]
        for p in range(len(left)):
            scale, line = left[p], right[p]
            for j in range(n):
                row[j] += scale * line[j]


@kernel(spec.matmul, "cpu/numba-integer", rank=30, formats=INTEGERS, contiguous=True)
def matmul(a: Array, b: Array) -> Array:
    a, b, shape = layout.stacks(a, b)
    c = layout.product(a, b, shape)
    multiply(a, b, c)
    return c.reshape(*shape, *c.shape[1:])
