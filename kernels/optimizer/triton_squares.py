"""Sums of squares of all gradients in two launches: each program adds a part of one gradient, then one program for each gradient
adds what its parts came to. Every sum has one order, so bits repeat; nothing goes to the host.

Next limit: memory bandwidth; on cards with few float64 units, those.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ulpgrad.formats import float32, float64
from ulpgrad.kernels import capture, gpu
from ulpgrad.kernels.optimizer.spec import flat_in_one_format, sum_of_squares
from ulpgrad.kernels.optimizer.triton_multi import CHUNK, gradient_of_part, table_of, values_of_part
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.triton_launch import launch, tl, triton

BLOCK = 1024


@triton.jit
def _squares(
    table, scaling, pieces, FACTORS: tl.constexpr, KIND: tl.constexpr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr
):
    i, count = tl.arange(0, CHUNK), values_of_part(table, 1)
    if count == CHUNK:
        value = gradient_of_part(table, 0, i, None, scaling, FACTORS, KIND, ALIGNED).to(tl.float64)
        total = tl.sum(value * value, 0)
    else:
        value = gradient_of_part(table, 0, i, i < count, scaling, FACTORS, KIND, ALIGNED).to(tl.float64)
        total = tl.sum(tl.where(i < count, value * value, 0), 0)
    tl.store(pieces + tl.program_id(0), total)


@triton.jit
def _totals(pieces, starts, out, BLOCK: tl.constexpr):
    n, i = tl.program_id(0), tl.arange(0, BLOCK)
    first, last = tl.load(starts + n).to(tl.int32), tl.load(starts + n + 1).to(tl.int32)
    total = tl.zeros([BLOCK], tl.float64)
    for at in range(first, last, BLOCK):
        total += tl.load(pieces + at + i, mask=at + i < last, other=0.0)
    tl.store(out + n, tl.sum(total, 0))


@lru_cache(64)
def _starts(device: int, stream: int, sizes: tuple[int, ...], chunk: int) -> Any:
    """int64[n + 1]: the first part of each gradient."""
    starts = np.concatenate([[0], np.cumsum(-(-np.asarray(sizes) // chunk))])
    return capture.constant(starts.astype(np.int64), device)


def squares_of(gradients: Sequence[Any], scaling: Any) -> Any:
    """float64[n] on the current device: of each C-contiguous gradient of one format the sum of squares of its scaled values."""
    dtype, queue = gradients[0].dtype, gpu.queue()
    chunk = CHUNK // dtype.itemsize
    addresses, sizes = tuple((g.data.ptr,) for g in gradients), tuple(g.size for g in gradients)
    table = capture.kept(table_of(*queue, addresses, sizes, dtype.itemsize, chunk))
    captured = capture.current()
    if captured is not None:
        captured.reach(gradients)
    xp = gpu.xp()
    pieces, out = xp.empty(table.shape[1], np.float64), xp.empty(len(gradients), np.float64)
    launch(_squares, (table.shape[1],), table, scaling, pieces, FACTORS=-1 if scaling is None else scaling.size - 1,
           KIND=tl.float64 if dtype.itemsize == 8 else tl.float32, ALIGNED=all(a % 16 == 0 for (a,) in addresses),
           CHUNK=chunk, num_warps=8)  # fmt: skip
    launch(
        _totals, (len(gradients),), pieces, capture.kept(_starts(*queue, sizes, chunk)), out, BLOCK=BLOCK, num_warps=4
    )
    return out


@kernel(sum_of_squares, "cuda/triton-squares", rank=60, formats=[float32, float64], where=flat_in_one_format)
def run(g: Any, scaling: Any) -> Any:
    return squares_of([g], scaling).reshape(())
