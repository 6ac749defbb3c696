"""Welford's recurrence (1962): differences are taken before anything is squared, so that no two large numbers are
subtracted.

The mean moves by delta / k with the k-th value; the sum of squares grows by the difference before times the difference
after the move. It costs a division per value, which vector code avoids by taking blocks of values and merging their
means and sums (Chan, Golub and LeVeque 1983), as this project's norms do.
"""

from ulpgrad.kernels.numba_jit import jit


@jit()
def variance(x, out):
    """A running mean, and squared differences from it."""
    for i in range(x.shape[0]):
        center = 0.0
        squares = 0.0
        for j in range(x.shape[1]):
            v = x[i, j]
            delta = v - center
            center += delta / (j + 1)
            squares += delta * (v - center)
        out[i] = squares / x.shape[1]
