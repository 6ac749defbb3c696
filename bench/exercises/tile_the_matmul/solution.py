"""A block of b stays in the cache while all rows of a pass by it. From memory come b once, and a and c once per block
beside them: with blocks of s, 2 n^3 / s values instead of n^3.

On a real machine the block is larger (the rung `numba-tiled` takes 128 x 512: 256 KiB, a part of the L2 cache), and
whether this alone is faster depends on what lies behind: a large L3 cache feeds a slow inner loop well enough. That
loop loads and stores c for every multiply-add. Tiling pays when it no longer does; "Beat the tiled rung", the last
exercise, goes on there, and is timed.
"""

from ulpgrad.kernels.numba_jit import jit

BLOCK = 16


@jit()
def multiply(a, b, c):
    """c = a b, block of b by block of b."""
    m, k, n = a.shape[0], a.shape[1], b.shape[1]
    for i in range(m):
        for j in range(n):
            c[i, j] = 0
    for p0 in range(0, k, BLOCK):
        for j0 in range(0, n, BLOCK):
            for i in range(m):
                for p in range(p0, min(p0 + BLOCK, k)):
                    scale = a[i, p]
                    for j in range(j0, min(j0 + BLOCK, n)):
                        c[i, j] += scale * b[p, j]
