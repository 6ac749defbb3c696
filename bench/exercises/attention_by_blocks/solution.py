"""Three numbers or rows per query are enough, whatever the number of keys: the maximum, the total, and the sum of
weighted values, all relative to the same maximum.

This is FlashAttention's recurrence (Dao et al. 2022). On a GPU the block of scores lives in registers and shared
memory, and what is saved is not memory but traffic: n^2 scores would be written and read twice. Division comes once, at
the end.
"""

import numpy as np


def attention(q, k, v, block):
    """Block by block of keys, with everything relative to the largest score so far."""
    top = np.full((len(q), 1), -np.inf)
    total = np.zeros((len(q), 1))
    out = np.zeros((len(q), v.shape[1]))
    for j in range(0, len(k), block):
        scores = q @ k[j : j + block].T / np.sqrt(q.shape[1])
        new = np.maximum(top, scores.max(axis=1, keepdims=True))
        weights = np.exp(scores - new)
        shrink = np.exp(top - new)
        total = total * shrink + weights.sum(axis=1, keepdims=True)
        out = out * shrink + weights @ v[j : j + block]
        top = new
    return out / total
