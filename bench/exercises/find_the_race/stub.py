"""This histogram is right on one thread, and loses counts on several, sometimes. Find out why, and put it right.

`codes` are whole numbers from 0 to len(out) - 1; `out[k]` becomes the number of codes that are k. `own` is zeros of
shape (parts, len(out)), room to work in: one row for each part that may run at the same time.

The loop over `prange` stays: its iterations may run at the same time, in any order. The checker does not wait for bad
luck: it records which iteration touches what.
"""

from ulpgrad.kernels.numba_jit import jit, prange


@jit(parallel=True)
def histogram(codes, own, out):
    """out[k] = how many codes are k."""
    for k in range(len(out)):
        out[k] = 0
    for i in prange(len(codes)):
        out[codes[i]] += 1
