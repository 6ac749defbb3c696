"""This softmax reads each row three times: for the maximum, for the sum, for the result. Make it two.

Find the maximum *and* the sum of the exponentials in one sweep, then write `y` in a second one. The shift by the
maximum stays: exp(89) is already infinite in float32.

`x` and `y` are float32 arrays of shape (rows, n), n at least 1. The checker counts how often each element of `x` is
read.
"""

import numpy as np

from ulpgrad.kernels.numba_jit import jit


@jit()
def softmax(x, y):
    """y[i] = exp(x[i] - max(x[i])) / sum(exp(x[i] - max(x[i])))."""
    for i in range(x.shape[0]):
        top = -np.inf
        for j in range(x.shape[1]):
            top = max(top, x[i, j])
        total = 0.0
        for j in range(x.shape[1]):
            total += np.exp(x[i, j] - top)
        for j in range(x.shape[1]):
            y[i, j] = np.exp(x[i, j] - top) / total
