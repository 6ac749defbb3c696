"""Write a matrix product in Triton: each program computes a tile of c, 16 x 16, and walks along k in steps of 16.

`a` (m, k) and `b` (k, n) are float16, `c` (m, n) is float32, of any sizes: tiles stick out at the edges, and along k as
well. Products are summed in float32. NaN lies in memory behind the arrays: what is loaded from there without a mask
shows.

`K` is a constant here, so that the loop over k has a known end.
"""

import triton
import triton.language as tl

from ulpgrad.kernels.triton_launch import launch

TILE = 16


@triton.jit
def multiply_kernel(a, b, c, m, n, K: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """One tile of c: rows i, columns j. This one does the first step of k only, and masks nothing."""
    i = tl.program_id(0) * BM + tl.arange(0, BM)
    j = tl.program_id(1) * BN + tl.arange(0, BN)
    p = tl.arange(0, BK)
    left = tl.load(a + i[:, None] * K + p[None, :])
    right = tl.load(b + p[:, None] * n + j[None, :])
    acc = tl.dot(left, right)
    tl.store(c + i[:, None] * n + j[None, :], acc)


def multiply(a, b, c):
    """c = a b."""
    (m, k), n = a.shape, b.shape[1]
    launch(multiply_kernel, (triton.cdiv(m, TILE), triton.cdiv(n, TILE)), a, b, c, m, n, k, BM=TILE, BN=TILE, BK=TILE)
