"""The row is loaded once, and stays in registers through maximum, exponential and sum: on a GPU it is limited by memory
alone.

-inf is the neutral element of the maximum, and exp(-inf) = 0 that of the sum, so one value for `other` serves both.
Beyond some thirty thousand columns a row no longer fits, and the online recurrence takes over.
"""

import triton
import triton.language as tl

from ulpgrad.kernels.triton_launch import launch


@triton.jit
def softmax_kernel(x, y, n, BLOCK: tl.constexpr):
    """One row, in registers from load to store."""
    row = tl.program_id(0)
    j = tl.arange(0, BLOCK)
    v = tl.load(x + row * n + j, mask=j < n, other=float("-inf"))
    e = tl.exp(v - tl.max(v, axis=0))
    tl.store(y + row * n + j, e / tl.sum(e, axis=0), mask=j < n)


def softmax(x, y):
    """y = softmax of each row of x."""
    rows, n = x.shape
    launch(softmax_kernel, (rows,), x, y, n, BLOCK=triton.next_power_of_2(n))
