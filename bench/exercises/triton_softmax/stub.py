"""Write softmax along rows as a Triton kernel: one program for each row.

`x` and `y` are float32 arrays of shape (rows, n), n at most a few thousand: a whole row fits into one block. A block
has a power of two of elements, a row has not, so the rest must be masked; and what a masked load returns takes part in
the maximum and in the sum.

The row is shifted by its maximum before the exponential. Fill `y`.
"""

import triton
import triton.language as tl

from ulpgrad.kernels.triton_launch import launch


@triton.jit
def softmax_kernel(x, y, n, BLOCK: tl.constexpr):
    """One row."""
    row = tl.program_id(0)
    j = tl.arange(0, BLOCK)
    v = tl.load(x + row * n + j, mask=j < n)
    tl.store(y + row * n + j, v, mask=j < n)


def softmax(x, y):
    """y = softmax of each row of x."""
    rows, n = x.shape
    launch(softmax_kernel, (rows,), x, y, n, BLOCK=triton.next_power_of_2(n))
