"""This gradient of softmax builds the Jacobian, n x n numbers for a row of n. Do without.

`y` is the softmax of each row of x, `g` the gradient with respect to y, both float64 of shape (rows, n). Return the
gradient with respect to x. What is below is right, and for a vocabulary of 50,000 words would need 20 GB for each row.
"""

import numpy as np


def backward(g, y):
    """Return the gradient with respect to x."""
    found = np.empty_like(y)
    for i in range(len(y)):
        jacobian = np.diag(y[i]) - np.outer(y[i], y[i])
        found[i] = jacobian @ g[i]
    return found
