"""The largest value of a block is brought to between 4 and 8, where E2M1 has its last codes, 4 and 6. What falls
between 6 and 8 saturates: the price of a scale that is a power of two, and costs no multiplier to apply.

Four bits and an eighth of a byte's share of the scale: 4.25 bits a value. The block is small enough that one outlier
spoils only its 31 neighbours.
"""

import numpy as np

from ulpgrad.formats import FORMATS

e2m1 = FORMATS["float4_e2m1fn"]


def to_e2m1(values):
    """The nearest values that E2M1 has, at most 6."""
    return e2m1.exact(e2m1.encode(values, overflow="saturate"))


def block_round(x):
    """Each row by the power of two that its largest value asks for."""
    largest = np.abs(x).max(axis=1, keepdims=True)
    exponent = np.floor(np.log2(np.where(largest > 0, largest, 1))) - 2
    scale = 2.0**exponent
    return to_e2m1(x / scale) * scale
