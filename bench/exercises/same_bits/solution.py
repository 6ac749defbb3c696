"""The pieces follow from the length alone. Which thread takes which, and when, changes nothing: each piece is added in
its own order, and the pieces' sums are added one after the other at the end.

All kernels here keep to this rule, and a test runs them on every number of threads. It costs nothing: 64 additions for
each one at the end. As a by-product the sum is better, too: errors grow with the length of a chain of additions, and
these are short.
"""

from ulpgrad.kernels.numba_jit import jit, prange

CHUNK = 64


@jit(parallel=True)
def total(x, threads, work, out):
    """out[0] = the sum of x, in pieces of a fixed length."""
    chunks = (len(x) + CHUNK - 1) // CHUNK
    for c in prange(chunks):
        for i in range(c * CHUNK, min((c + 1) * CHUNK, len(x))):
            work[c] += x[i]
    out[0] = 0
    for c in range(chunks):
        out[0] += work[c]
