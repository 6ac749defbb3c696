"""Write causal attention as one Triton kernel: softmax(q k^T / sqrt(d)) v, where query i sees keys 0 to i.

`q`, `k`, `v` and `out` are float32 of shape (n, 16); n is anything. Each program takes 16 queries and goes through the
keys in blocks of 16, with the online softmax: no array of scores larger than 16 x 16 exists. NaN lies in memory behind
the arrays.

N, the number of keys, is a constant, so that the loop has a known end. "Attention by blocks" is the same in NumPy.
"""

import triton
import triton.language as tl

from ulpgrad.kernels.triton_launch import launch

BLOCK = 16


@triton.jit
def attention_kernel(q, k, v, out, n, scale, N: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK queries. So far it copies their values."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, D)
    rows = tl.load(v + i[:, None] * D + d[None, :], mask=(i < n)[:, None], other=0.0)
    tl.store(out + i[:, None] * D + d[None, :], rows, mask=(i < n)[:, None])


def attention(q, k, v, out):
    """out = softmax(q k^T / sqrt(d)) v, causal."""
    n, d = q.shape
    launch(attention_kernel, (triton.cdiv(n, BLOCK),), q, k, v, out, n, d**-0.5, N=n, D=d, BLOCK=BLOCK)
