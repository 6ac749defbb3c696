"""As many programs as blocks, rounded up, each at its own offset; what sticks out of the last block is masked in loads
and stores.

On a GPU each program is a group of threads, and its vector lies in their registers; neighbouring elements are loaded in
one transaction. Without the mask a store behind the end lands in whatever lies there: it crashes if one is lucky.
"""

import triton
import triton.language as tl

from ulpgrad.kernels.triton_launch import launch

BLOCK = 64


@triton.jit
def axpy_kernel(a, x, y, out, n, BLOCK: tl.constexpr):
    """One block of the vector, masked at its end."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + i, a * tl.load(x + i, mask=i < n) + tl.load(y + i, mask=i < n), mask=i < n)


def axpy(a, x, y, out):
    """out = a * x + y."""
    launch(axpy_kernel, (triton.cdiv(len(x), BLOCK),), a, x, y, out, len(x), BLOCK=BLOCK)
