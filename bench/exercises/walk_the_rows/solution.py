"""The same additions in another order: each line of memory is used up while it is in the cache, and the inner loop,
over neighbours, becomes vector instructions.

`out` is now read and written for every row, but it is small, and stays in the cache. Matrix products, convolutions and
norms over leading axes all turn on this exchange.
"""

from ulpgrad.kernels.numba_jit import jit


@jit()
def column_sums(x, out):
    """One row after the other, added to all sums at once."""
    for j in range(x.shape[1]):
        out[j] = 0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[j] += x[i, j]
