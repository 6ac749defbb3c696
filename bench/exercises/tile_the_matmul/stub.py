"""This product walks along rows everywhere, and still reads all of b once for every row of a. Tile it.

`c = a b`, with float32 `a` of shape (m, k), `b` (k, n) and `c` (m, n), of any sizes; `c` holds anything before the
call.

The checker simulates a cache of 40 lines of 8 values, which matrices of 24 x 24 do not fit into: a block of b has to
stay there until every row of a has used it.
"""

from ulpgrad.kernels.numba_jit import jit


@jit()
def multiply(a, b, c):
    """c = a b."""
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            c[i, j] = 0
        for p in range(a.shape[1]):
            scale = a[i, p]
            for j in range(b.shape[1]):
                c[i, j] += scale * b[p, j]
