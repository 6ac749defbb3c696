"""A block of 16 x 16 values touches 16 lines of x and 16 of y. All of them stay in the cache until the block is done,
so that each line is fetched once.

The rule for any size of cache: two blocks fit into it together, and a block's rows are whole lines. What is left to
gain is inside the block: the project's own kernel turns 16 x 16 values in vector registers.
"""

from ulpgrad.kernels.numba_jit import jit

BLOCK = 16


@jit()
def transpose(x, y):
    """Block by block, smaller ones at the edges."""
    m, n = x.shape
    for i0 in range(0, m, BLOCK):
        for j0 in range(0, n, BLOCK):
            for i in range(i0, min(i0 + BLOCK, m)):
                for j in range(j0, min(j0 + BLOCK, n)):
                    y[j, i] = x[i, j]
