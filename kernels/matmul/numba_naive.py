"""Three loops, ordered i-k-j so that the inner one runs along rows of B and C. Next limit: in large matrices every row
of B comes from memory again for each row of A."""

from __future__ import annotations

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.matmul import layout, spec
from ulpgrad.kernels.numba_jit import jit
from ulpgrad.kernels.registry import kernel


@jit(fastmath={"contract"})
def multiply(a: Array, b: Array, c: Array) -> None:
    for s in range(len(c)):
        left, right = a[min(s, len(a) - 1)], b[min(s, len(b) - 1)]
        for i in range(c.shape[1]):
            row = c[s, i]
            for p in range(left.shape[1]):
                scale, line = left[i, p], right[p]
                for j in range(len(row)):
                    row[j] += scale * line[j]


@kernel(spec.matmul, "cpu/numba-naive", rank=20, formats=[float32, float64], contiguous=True)
def matmul(a: Array, b: Array) -> Array:
    a, b, shape = layout.stacks(a, b)
    c = layout.product(a, b, shape)
    multiply(a, b, c)
    return c.reshape(*shape, *c.shape[1:])
