"""-128 * -128 = 16384 is the product to fear: two of them are one too many for int16, 131072 for int32. So int8
products cannot share an int16 at all, and instructions that add pairs of them there (AVX2's VPMADDUBSW) saturate;
VNNI adds four into 32 bits.

With 4-bit codes the same int16 holds 511 products. Parts of a safe length cost one widening each, and no comparison
inside the loop: that is how the project's own accumulators are planned, before anything is added.
"""

from ulpgrad.kernels.numba_jit import jit


def safe_terms(a_bits, b_bits, bits):
    """The accumulator's largest value by the largest product."""
    return (2 ** (bits - 1) - 1) // 2 ** (a_bits + b_bits - 2)


@jit()
def dot(a, b, terms, narrow, out):
    """Short sums in 16 bits, their sum in 64."""
    out[0] = 0
    for part in range(len(narrow)):
        narrow[part] = 0
        for i in range(part * terms, min((part + 1) * terms, len(a))):
            narrow[part] += int(a[i]) * int(b[i])
        out[0] += narrow[part]
