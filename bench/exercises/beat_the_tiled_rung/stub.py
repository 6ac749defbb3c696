"""Write the fastest float32 matrix product you can in Numba. The one to beat is the ladder's rung `numba-tiled`.

`multiply(a, b, c)` sets c = a b; `a` is (m, k), `b` (k, n), `c` (m, n), of any sizes, and `c` holds anything before the
call. Several `@jit` functions may call each other; `prange` in one with parallel=True runs on all threads.

The checker looks at the result and at races, then times it beside the rung, in turns. What is below is slower than the
rung.
"""

from ulpgrad.kernels.numba_jit import jit


@jit(fastmath={"contract"})
def multiply(a, b, c):
    """c += a b, which is not yet c = a b."""
    for i in range(a.shape[0]):
        for p in range(a.shape[1]):
            for j in range(b.shape[1]):
                c[i, j] += a[i, p] * b[p, j]
