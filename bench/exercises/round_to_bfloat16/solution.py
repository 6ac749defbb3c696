"""An addition rounds: what is above the middle carries into the half that stays. At exactly the middle, 0x8000, the sum
carries only if the last bit that stays is 1, and makes it even.

Nothing has to be done for a mantissa that overflows: the carry raises the exponent, and from the largest exponent on
the result is infinity, as it should be. This is why floats are laid out as they are. Only NaN, which is no number,
needs care.
"""

import numpy as np


def round_bits(bits):
    """Nearest, ties to even; NaN stays NaN."""
    is_nan = bits & 0x7FFFFFFF > 0x7F800000
    rounded = bits + np.uint32(0x7FFF) + (bits >> 16 & 1)
    return np.where(is_nan, bits >> 16 | 0x40, rounded >> 16).astype(np.uint16)
