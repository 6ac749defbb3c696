"""Blocks of B that stay in the L2 cache serve all rows of A, and each C value takes four steps of k between its load
and its store. Next limit: each B value is loaded once per row of A, and one core does it all."""

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
            p1 = min(k, p0 + BLOCK_K)
            whole = p0 + (p1 - p0) // 4 * 4
            for j0 in range(0, n, BLOCK_N):
                j1 = min(n, j0 + BLOCK_N)
                for i in range(m):
                    row = c[s, i, j0:j1]
                    for p in range(p0, whole, 4):
                        a0, a1, a2, a3 = left[i, p], left[i, p + 1], left[i, p + 2], left[i, p + 3]
                        b0, b1, b2, b3 = right[p, j0:j1], right[p + 1, j0:j1], right[p + 2, j0:j1], right[p + 3, j0:j1]
                        for j in range(len(row)):
                            row[j] = (((row[j] + a0 * b0[j]) + a1 * b1[j]) + a2 * b2[j]) + a3 * b3[j]
                    for p in range(whole, p1):
                        a0, b0 = left[i, p], right[p, j0:j1]
                        for j in range(len(row)):
                            row[j] += a0 * b0[j]


@kernel(spec.matmul, "cpu/numba-tiled", rank=30, formats=[float32, float64], contiguous=True)
def matmul(a: Array, b: Array) -> Array:
    a, b, shape = layout.stacks(a, b)
    c = layout.product(a, b, shape)
    multiply(a, b, c)
    return c.reshape(*shape, *c.shape[1:])
