"""The accumulator stays in registers while tiles of a and b pass by: each tile of c costs one store, whatever k is.

Zeros are loaded beyond k, where they add nothing; beyond m and n it does not matter what is loaded, because it is not
stored. On a GPU `tl.dot` is a tensor-core instruction, tiles are 128 x 256, and the loads of the next step run while
this one multiplies.
"""

import triton
import triton.language as tl

from ulpgrad.kernels.triton_launch import launch

TILE = 16


@triton.jit
def multiply_kernel(a, b, c, m, n, K: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """One tile of c: rows i, columns j."""
    i = tl.program_id(0) * BM + tl.arange(0, BM)
    j = tl.program_id(1) * BN + tl.arange(0, BN)
    acc = tl.zeros((BM, BN), dtype=tl.float32)
    for k0 in range(0, K, BK):
        p = k0 + tl.arange(0, BK)
        left = tl.load(a + i[:, None] * K + p[None, :], mask=(i < m)[:, None] & (p < K)[None, :], other=0.0)
        right = tl.load(b + p[:, None] * n + j[None, :], mask=(p < K)[:, None] & (j < n)[None, :], other=0.0)
        acc += tl.dot(left, right)
    tl.store(c + i[:, None] * n + j[None, :], acc, mask=(i < m)[:, None] & (j < n)[None, :])


def multiply(a, b, c):
    """c = a b."""
    (m, k), n = a.shape, b.shape[1]
    launch(multiply_kernel, (triton.cdiv(m, TILE), triton.cdiv(n, TILE)), a, b, c, m, n, k, BM=TILE, BN=TILE, BK=TILE)
