"""Round first, compare afterwards, and compare whole numbers: codes are what is stored, and their two ends are not
symmetric.

Taking log2 of the largest magnitude looks shorter, and is wrong twice: at -2^m, which still fits, and just below 2^m,
where a value is rounded up to a code that does not exist. What the real data are tomorrow is another matter: a value
that was not among these may saturate, and it is then a question of what costs less, a rare large error or coarser steps
for all.
"""

import numpy as np


def choose(values, bits):
    """The fewest bits before the point that hold every rounded value."""
    for m in range(bits):
        n = bits - 1 - m
        codes = np.rint(values * 2.0**n)
        if codes.min() >= -(2 ** (bits - 1)) and codes.max() <= 2 ** (bits - 1) - 1:
            return m, n
    raise ValueError(f"{bits} bits are too few for values from {values.min()} to {values.max()}")
