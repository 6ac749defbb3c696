"""`out[k] += 1` is three steps: read, add, write. Two threads that take them at the same time count once instead of
twice.

Here each part counts into a row of its own, and one thread adds up the rows. No result depends on who comes first, so
the bits are the same for any number of threads. (Atomic additions would be right as well for whole numbers, and slow
where many threads want the same element; for floats they would make the order, and with it the last bits, a matter of
luck.)
"""

from ulpgrad.kernels.numba_jit import jit, prange


@jit(parallel=True)
def histogram(codes, own, out):
    """Count in rows that nobody shares, then add up the rows."""
    parts = len(own)
    for part in prange(parts):
        for i in range(part * len(codes) // parts, (part + 1) * len(codes) // parts):
            own[part, codes[i]] += 1
    for k in range(len(out)):
        out[k] = 0
    for part in range(parts):
        for k in range(len(out)):
            out[k] += own[part, k]
