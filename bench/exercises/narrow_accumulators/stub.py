"""Integer units add products in narrow accumulators, which wrap in silence when they are full. Keep them from it.

1. `safe_terms(a_bits, b_bits, bits)`: how many products of codes of a_bits and b_bits (two's complement, sign included)
   can be added up in an accumulator of `bits` for certain, whatever the codes are?

2. The kernel `dot(a, b, terms, narrow, out)`: `a` and `b` are int8 arrays of the same length. Part p of the sum, the
   products from p * terms up to (p + 1) * terms, is added up in the int16 narrow[p]; there is a place for each part,
   and the last may be shorter. All parts together go to the int64 out[0]. `narrow` and `out` hold anything before the
   call.
"""

from ulpgrad.kernels.numba_jit import jit


def safe_terms(a_bits, b_bits, bits):
    """Return how many products fit for certain."""
    return 2**bits // 2 ** (a_bits + b_bits)


@jit()
def dot(a, b, terms, narrow, out):
    """narrow[p] = the sum of part p; out[0] = the sum of all parts."""
