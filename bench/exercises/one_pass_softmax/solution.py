"""The sum is always relative to the largest value so far (Milakov and Gimelshein 2018). A new maximum makes every
earlier term too large by one and the same factor, so that a single multiplication puts the whole sum right.

It pays where a row does not stay in a fast cache. The same step, applied to a weighted sum of rows instead of a sum of
numbers, is what lets attention run without its matrix of scores.
"""

import numpy as np

from ulpgrad.kernels.numba_jit import jit


@jit()
def softmax(x, y):
    """Maximum and sum in one sweep, the result in a second."""
    for i in range(x.shape[0]):
        top = -np.inf
        total = 0.0
        for j in range(x.shape[1]):
            v = x[i, j]
            if v > top:
                total = total * np.exp(top - v) + 1
                top = v
            else:
                total += np.exp(v - top)
        for j in range(x.shape[1]):
            y[i, j] = np.exp(x[i, j] - top) / total
