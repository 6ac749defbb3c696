"""A multiplier in [2^30, 2^31) keeps 31 digits of the real scale, whatever its size is; the shift has the rest. The
product is exact in 64 bits, and one addition of half a unit makes the shift round.

Everything is a whole number, so the result is the same on every machine: what a float would do in its last bit is no
question. TOSA and TensorFlow Lite specify it like this.
"""

import numpy as np


def requantize(x, multiplier, shift, zero_point):
    """Multiply, round, shift, move, limit, narrow."""
    wide = shift.astype(np.int64)
    product = x.astype(np.int64) * multiplier
    half = np.int64(1) << (wide - 1)
    codes = product + half >> wide
    return np.clip(codes + zero_point, -128, 127).astype(np.int8)
