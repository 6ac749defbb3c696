"""Write the kernel `variance`: `out[i]` is the variance of row i of `x`, in one sweep over the row.

The variance is the mean of the squared differences from the mean: divide by n. `x` is float64 of shape (rows, n), `out`
float64 of shape (rows,). Each element of `x` is to be read once: the checker counts.

The values may be large: temperatures in millikelvin, times in nanoseconds, 1e9 plus or minus 1. What the kernel below
does is right on paper.
"""

from ulpgrad.kernels.numba_jit import jit


@jit()
def variance(x, out):
    """out[i] = the variance of x[i]."""
    for i in range(x.shape[0]):
        total = 0.0
        squares = 0.0
        for j in range(x.shape[1]):
            v = x[i, j]
            total += v
            squares += v * v
        out[i] = squares / x.shape[1] - (total / x.shape[1]) ** 2
