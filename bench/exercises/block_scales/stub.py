"""Write `block_round(x)`: what is left of values that are stored in MXFP4.

In this format of the Open Compute Project, 32 values share a scale, a power of two, and each keeps 4 bits: the codes of
E2M1 are 0, 0.5, 1, 1.5, 2, 3, 4 and 6, and their negatives. The scale's exponent is that of the block's largest
magnitude, rounded down, less the largest exponent of E2M1. Values that are still beyond 6 after scaling saturate.

`x` is float64 of shape (blocks, 32), each row a block; return the rounded values in float64. `to_e2m1` rounds to the
nearest code.
"""

from ulpgrad.formats import FORMATS

e2m1 = FORMATS["float4_e2m1fn"]


def to_e2m1(values):
    """The nearest values that E2M1 has, at most 6."""
    return e2m1.exact(e2m1.encode(values, overflow="saturate"))


def block_round(x):
    """Scale each row by a power of two of its own, round, and scale back."""
    return to_e2m1(x)
