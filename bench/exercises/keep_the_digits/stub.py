"""Write the kernel `total`: `out[0]` is the sum of the float64 array `x`, within 2 units in the last place of the exact
sum.

One addition after the other is off by dozens of units for ten thousand values, and by all of the small ones where a
large one comes first. Use float64 only. The trick is to compute what an addition has rounded away, which is a float64
itself, and to give it back with the next value.
"""

from ulpgrad.kernels.numba_jit import jit


@jit()
def total(x, out):
    """out[0] = the sum of x."""
    total = 0.0
    for i in range(len(x)):
        total += x[i]
    out[0] = total
