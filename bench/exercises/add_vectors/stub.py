"""Write the kernel `add`: `out[i] = x[i] + y[i]` for every element.

`x`, `y` and `out` are one-dimensional float32 arrays of the same length, which may be anything: 1, 1001, 0. The kernel
returns nothing; it fills `out`, and leaves `x` and `y` as they are.

`@jit` compiles the function with Numba at its first call: plain loops over elements become machine code.
"""

from ulpgrad.kernels.numba_jit import jit


@jit()
def add(x, y, out):
    """Your turn: a loop over all elements."""
