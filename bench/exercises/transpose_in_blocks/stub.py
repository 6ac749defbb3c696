"""This transpose reads along rows and writes down columns. Make it go block by block.

Whichever loop is the inner one, one of the two matrices is walked across its lines, and a large matrix has fallen out
of the cache before a line's next value is wanted. A block of both matrices fits.

`x` is float32 of shape (m, n), `y` of shape (n, m); any sizes. The checker counts the misses of a cache of 48 lines of
16 values.
"""

from ulpgrad.kernels.numba_jit import jit


@jit()
def transpose(x, y):
    """y[j, i] = x[i, j]."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[j, i] = x[i, j]
