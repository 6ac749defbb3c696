"""Adding a uniform number and taking the floor goes up with exactly the chance of the fraction: the mean of the result
is x.

A value on the grid stays: its fraction is 0, and u is below 1. The variance is the price, up to a quarter of a squared
step for each rounding; in training it averages out over many updates, as the noise of mini-batches does (Gupta et al.
2015).
"""

import numpy as np


def round_stochastic(x, step, u):
    """Up with the chance of the fraction."""
    return np.copysign(np.floor(np.abs(x) / step + u) * step, x)
