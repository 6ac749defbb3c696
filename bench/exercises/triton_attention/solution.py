"""The online softmax between two products, all of it in registers: top, total and acc are relative to the same maximum.

Blocks of keys that lie wholly in the future add nothing (their weights are 0), and a faster kernel ends its loop before
them. On a GPU the limit is then arithmetic: 4 n^2 d operations, and exp beside them; keeping the units that multiply
and those that exponentiate busy at the same time is what the latest kernels are about.
"""

import triton
import triton.language as tl

from ulpgrad.kernels.triton_launch import launch

BLOCK = 16


@triton.jit
def attention_kernel(q, k, v, out, n, scale, N: tl.constexpr, D: tl.constexpr, BLOCK: tl.constexpr):
    """BLOCK queries, block by block of keys."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, D)
    queries = tl.load(q + i[:, None] * D + d[None, :], mask=(i < n)[:, None], other=0.0)
    top = tl.full((BLOCK,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    acc = tl.zeros((BLOCK, D), dtype=tl.float32)
    for start in range(0, N, BLOCK):
        j = start + tl.arange(0, BLOCK)
        keys = tl.load(k + j[None, :] * D + d[:, None], mask=(j < n)[None, :], other=0.0)
        values = tl.load(v + j[:, None] * D + d[None, :], mask=(j < n)[:, None], other=0.0)
        s = tl.dot(queries, keys, input_precision="ieee") * scale
        s = tl.where((j < n)[None, :] & (j[None, :] <= i[:, None]), s, float("-inf"))
        new = tl.maximum(top, tl.max(s, axis=1))
        w = tl.exp(s - new[:, None])
        shrink = tl.exp(top - new)
        total = total * shrink + tl.sum(w, axis=1)
        acc = acc * shrink[:, None] + tl.dot(w, values, input_precision="ieee")
        top = new
    tl.store(out + i[:, None] * D + d[None, :], acc / total[:, None], mask=(i < n)[:, None])


def attention(q, k, v, out):
    """out = softmax(q k^T / sqrt(d)) v, causal."""
    n, d = q.shape
    launch(attention_kernel, (triton.cdiv(n, BLOCK),), q, k, v, out, n, d**-0.5, N=n, D=d, BLOCK=BLOCK)
