"""The same three loops on blocks of B that fit the L2 cache, so that a block is fetched once for all rows of A. Next
limit: each multiply-add loads and stores its C value, and one core does it all."""

from __future__ import annotations

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.matmul import layout, spec
from ulpgrad.kernels.numba_jit import jit
from ulpgrad.kernels.registry import kernel

BLOCK_K = 128
BLOCK_N = 512


@jit(fastmath={"contract"})
def multiply(a: Array, b: Array, c: Array) -> None:
    for s in range(len(c)):
        left, right = a[min(s, len(a) - 1)], b[min(s, len(b) - 1)]
        (m, k), n = left.shape, right.shape[1]
        for p0 in range(0, k, BLOCK_K):
            for j0 in range(0, n, BLOCK_N):
                j1 = min(n, j0 + BLOCK_N)
                for i in range(m):
                    row = c[s, i, j0:j1]
                    for p in range(p0, min(k, p0 + BLOCK_K)):
                        scale, line = left[i, p], right[p, j0:j1]
                        for j in range(len(row)):
                            row[j] += scale * line[j]


@kernel(spec.matmul, "cpu/numba-tiled", rank=30, formats=[float32, float64], contiguous=True)
def matmul(a: Array, b: Array) -> Array:
    a, b, shape = layout.stacks(a, b)
    c = layout.product(a, b, shape)
    multiply(a, b, c)
    return c.reshape(*shape, *c.shape[1:])
