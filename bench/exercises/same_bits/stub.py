"""This parallel sum gives other last bits with another number of threads. Make them always the same.

`x` is float32, `threads` how many may be at work, `work` float32 zeros of x's length (room for anything in between),
and the sum goes to out[0]. The sum must have the same bits for any `threads`, and the work must stay parallel: no
thread of four may be left with more than half of it. (The loop over `prange` is what runs in parallel.)
"""

from ulpgrad.kernels.numba_jit import jit, prange


@jit(parallel=True)
def total(x, threads, work, out):
    """out[0] = the sum of x."""
    for t in prange(threads):
        for i in range(t * len(x) // threads, (t + 1) * len(x) // threads):
            work[t] += x[i]
    out[0] = 0
    for t in range(threads):
        out[0] += work[t]
