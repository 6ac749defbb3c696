"""This attention holds the scores of every query with every key at once. Take the keys block by block.

    softmax(q k^T / sqrt(d)) v

`q` is (n, d), `k` (m, d), `v` (m, e), all float64; `block` is the number of keys to take at a time (the last block may
be shorter). The result is (n, e). The checker looks at how much memory is held: for 1024 queries and keys, the scores
alone would be 8 MB.

If you have done "Make this softmax one pass", you have done half of it.
"""

import numpy as np


def attention(q, k, v, block):
    """Return softmax(q k^T / sqrt(d)) v."""
    scores = q @ k.T / np.sqrt(q.shape[1])
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights @ v / weights.sum(axis=1, keepdims=True)
