"""Each value is read from where its index says. Sums back sort the places of all values (stably), so that every place adds its
own in their order: the sums are those of a single loop, without atomics.

Next limit: the sort, which moves every index and position several times.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ulpgrad.formats import ALL, INTEGERS, float32, float64
from ulpgrad.kernels import deferred, gpu
from ulpgrad.kernels.gather import spec
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

BLOCK = 512


@triton.jit
def _take(x, indices, out, failed, total, count, size, inner, BLOCK: tl.constexpr):
    """Of an array [outer, size, inner] what indices [outer, count, inner] say."""
    first = tl.program_id(0).to(tl.int64) * BLOCK
    place = first + tl.arange(0, BLOCK)
    mask = place < total
    raw = tl.load(indices + place, mask=mask, other=0)
    index = raw.to(tl.int64)
    wrong = (index < -size) | (index >= size)
    if raw.dtype == tl.uint64:
        wrong = wrong | (index < 0)
    index = tl.where(index < 0, index + size, index)
    source = (place // inner // count * size + index) * inner + place % inner
    tl.store(out + place, tl.load(x + source, mask=mask & (wrong == 0), other=0), mask=mask)
    tl.store(failed, 1, mask=tl.max((wrong & mask).to(tl.int32), 0) != 0)


@triton.jit
def _add(g, order, begins, out, total, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    at = tl.load(begins + place, mask=place < total, other=0)
    end = tl.load(begins + place + 1, mask=place < total, other=0)
    sums = tl.zeros((BLOCK,), out.dtype.element_ty)
    most = tl.max(end - at, 0)
    step = 0
    while step < most:
        source = tl.load(order + at, mask=at < end, other=0)
        sums += tl.load(g + source, mask=at < end, other=0)
        at += 1
        step += 1
    tl.store(out + place, sums, mask=place < total)


@kernel(spec.take_along_axis, "cuda/triton-lines", rank=40, formats=ALL, contiguous=True)
def take_along_axis(x: Any, indices: Any, *, axis: int) -> Any:
    xp = gpu.xp()
    out, failed = xp.empty(indices.shape, x.dtype), xp.zeros(1, np.int32)
    launch(
        _take, (cdiv(out.size, BLOCK),), x, indices, out, failed, out.size, indices.shape[axis], x.shape[axis],
        math.prod(x.shape[axis + 1 :]), BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    size = x.shape[axis]
    deferred.ask("take_along_axis", failed, lambda: spec.validate("take_along_axis", gpu.to_host(indices), size))
    return out


@kernel(spec.scatter_add, "cuda/triton-sorted", rank=40, formats=[float32, float64, *INTEGERS], contiguous=True)
def scatter_add(g: Any, indices: Any, *, axis: int, size: int) -> Any:
    xp = gpu.xp()
    outer, inner = math.prod(g.shape[:axis]), math.prod(g.shape[axis + 1 :])
    out = xp.empty((*g.shape[:axis], size, *g.shape[axis + 1 :]), g.dtype)
    if g.size == 0:
        out.fill(0)
        return out
    rows = indices.astype(np.int64)
    lowest = 0 if indices.dtype.kind == "u" else -size
    failed = ((rows < lowest) | (rows >= size)).any()
    deferred.ask("scatter_add", failed, lambda: spec.validate("scatter_add", gpu.to_host(indices), size))
    rows = xp.where(rows < 0, rows + size, rows).reshape(outer, g.shape[axis], inner)
    lines = (xp.arange(outer) * size).reshape(outer, 1, 1)
    places = ((lines + rows) * inner + xp.arange(inner)).reshape(-1)
    order = xp.argsort(places, kind="stable").astype(np.int64)
    begins = xp.searchsorted(places[order], xp.arange(out.size + 1)).astype(np.int64)
    launch(_add, (cdiv(out.size, BLOCK),), g, order, begins, out, out.size, BLOCK=BLOCK, num_warps=4)
    return out
