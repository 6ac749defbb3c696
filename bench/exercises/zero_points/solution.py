"""(a - za)(b - zb) = a b - zb a - za b + za zb, summed over k. The first is the large product, which runs on small
integers; the others are sums of rows and columns, n^2 work beside n^3.

The columns' sums of a weight are known before anything runs, and are folded into the bias. With zb = 0 (symmetric
weights, as most networks have them) the rows' sums disappear, and nothing is left at run time: that is why weights are
kept symmetric.
"""

import numpy as np


def affine_matmul(a, b, za, zb, product):
    """One product of the codes, and three corrections."""
    k = a.shape[1]
    rows = a.sum(axis=1, keepdims=True, dtype=np.int64)
    columns = b.sum(axis=0, keepdims=True, dtype=np.int64)
    return product(a, b) - zb * rows - za * columns + k * za * zb
