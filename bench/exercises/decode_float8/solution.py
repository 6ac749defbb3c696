"""The hidden one is there for every exponent but zero; there the power stays that of exponent 1, so that the numbers
run on to zero in equal steps of 2^-9.

That two codes instead of sixteen are spent on what is not a number is the only peculiarity: it raises the largest value
from 240 to 448. Deep-learning formats differ in such points, and in the bias, more than in anything else.
"""

import numpy as np


def decode(codes):
    """Take the bits apart, and put them together as a value."""
    exponent = (codes >> 3 & 15).astype(int)
    mantissa = (codes & 7) / 8
    sign = np.where(codes >> 7, -1.0, 1.0)
    size = np.where(exponent > 0, (1 + mantissa) * 2.0 ** (exponent - 7), mantissa * 2.0**-6)
    return np.where(codes & 127 == 127, np.nan, sign * size)
