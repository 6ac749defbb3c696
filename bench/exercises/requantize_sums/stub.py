"""Write `requantize(x, multiplier, shift, zero_point)`: sums of products as int8 codes again, in whole numbers only.

    y = clamp(round(x * multiplier / 2^shift) + zero_point, -128, 127)

`x` is int32 of shape (rows, channels); `multiplier` (2^30 up to 2^31 - 1) and `shift` (31 to 62) are int32 with one
value for each channel; `zero_point` is an int. The quotient is rounded to the nearest whole number, from the middle on
upward. Return int8 of x's shape.

No floats: float64 has 53 bits, and the product has 62.
"""

import numpy as np


def requantize(x, multiplier, shift, zero_point):
    """Return int8 codes."""
    return ((x * multiplier >> shift) + zero_point).astype(np.int8)
