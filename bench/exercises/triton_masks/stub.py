"""Write a Triton kernel for `out = a * x + y`, for vectors of any length.

A Triton kernel is written for a *block*: it computes with vectors of BLOCK elements, and is started once for each
block, as program 0, 1, 2, ... A pointer plus a vector of offsets is a vector of pointers; `tl.load` and `tl.store` take
such, and a mask.

`axpy` gets float32 arrays of the same length, and fills `out`. The kernel below is right for one block. It runs in
Triton's interpreter, on the CPU: `launch(kernel, grid, arguments..., CONSTANT=...)`. The checker watches the memory
behind the arrays.
"""

import triton
import triton.language as tl

from ulpgrad.kernels.triton_launch import launch

BLOCK = 64


@triton.jit
def axpy_kernel(a, x, y, out, n, BLOCK: tl.constexpr):
    """One block."""
    i = tl.arange(0, BLOCK)
    tl.store(out + i, a * tl.load(x + i) + tl.load(y + i))


def axpy(a, x, y, out):
    """out = a * x + y."""
    launch(axpy_kernel, (1,), a, x, y, out, len(x), BLOCK=BLOCK)
