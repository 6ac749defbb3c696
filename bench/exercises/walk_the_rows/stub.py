"""This kernel sums the columns of a matrix, and is right, but slow: it goes down the columns. Go along the rows
instead.

A matrix lies in memory row by row, and memory is fetched in lines of 64 bytes, 16 float32 values. Going down a column
uses one value of each line; when the next column wants its neighbour, the line is gone.

`x` is float32 of shape (rows, columns), `out` has one place per column and holds anything before the call. The checker
counts the misses of a small simulated cache.
"""

from ulpgrad.kernels.numba_jit import jit


@jit()
def column_sums(x, out):
    """out[j] = the sum of x[i, j] over all rows i."""
    for j in range(x.shape[1]):
        total = 0.0
        for i in range(x.shape[0]):
            total += x[i, j]
        out[j] = total
