"""Rows are copied in tiles of a thousand values; the gradient sorts the indices (stably), so that a program adds all rows of g
that belong to its rows of the table, in index order: no two programs meet, and the sums are those of a single loop.

Next limit: a row that is named very often is added up by one program, one row of g after the other.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import ALL, INTEGERS, float32, float64
from ulpgrad.kernels import deferred, gpu
from ulpgrad.kernels.embedding import spec
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

TILE = 1024  # values of a program


@triton.jit
def _take(weight, indices, out, failed, count, rows, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    index = tl.load(indices + row, mask=row < count, other=0).to(tl.int64)  # uint64 beyond 2^63 turn negative
    wrong = (index < 0) | (index >= rows)
    there = (row < count)[:, None] & (column < width)[None, :]
    value = tl.load(weight + index[:, None] * width + column[None, :], mask=there & (wrong == 0)[:, None], other=0)
    tl.store(out + row[:, None] * width + column[None, :], value, mask=there)
    tl.store(failed, 1, mask=tl.max((wrong & (row < count)).to(tl.int32), 0) != 0)


@triton.jit
def _add(g, order, begins, out, rows, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    at = tl.load(begins + row, mask=row < rows, other=0)
    end = tl.load(begins + row + 1, mask=row < rows, other=0)
    total = tl.zeros((ROWS, COLUMNS), out.dtype.element_ty)
    most = tl.max(end - at, 0)
    step = 0
    while step < most:
        source = tl.load(order + at, mask=at < end, other=0)
        there = (at < end)[:, None] & (column < width)[None, :]
        total += tl.load(g + source[:, None] * width + column[None, :], mask=there, other=0)
        at += 1
        step += 1
    tl.store(
        out + row[:, None] * width + column[None, :], total, mask=(row < rows)[:, None] & (column < width)[None, :]
    )


def _tile(count: int, width: int) -> tuple[tuple[int, int], dict[str, int]]:
    """Grid and constants for rows of this width."""
    columns = min(1 << max(width - 1, 0).bit_length(), TILE)
    rows = TILE // columns
    return (cdiv(count, rows), cdiv(width, columns)), {"ROWS": rows, "COLUMNS": columns, "num_warps": 4}


@kernel(spec.embedding, "cuda/triton-rows", rank=40, formats=ALL, contiguous=True)
def embedding(weight: Any, indices: Any) -> Any:
    xp = gpu.xp()
    rows, width = weight.shape
    out, failed = xp.empty((*indices.shape, width), weight.dtype), xp.zeros(1, np.int32)
    grid, tile = _tile(indices.size, width)
    launch(_take, grid, weight, indices, out, failed, indices.size, rows, width, **tile)
    deferred.ask("embedding", failed, lambda: spec.validate("embedding", gpu.to_host(indices), rows))
    return out


@kernel(spec.embedding_gradient, "cuda/triton-sorted", rank=40, formats=[float32, float64, *INTEGERS], contiguous=True)
def embedding_gradient(g: Any, indices: Any, *, rows: int) -> Any:
    xp, width = gpu.xp(), g.shape[-1]
    flat = indices.reshape(-1).astype(np.int64)
    if flat.size == 0:
        return xp.zeros((rows, width), g.dtype)
    order = xp.argsort(flat, kind="stable")
    ranked = flat[order]
    failed = (ranked[0] < 0) | (ranked[-1] >= rows)
    deferred.ask("embedding_gradient", failed, lambda: spec.validate("embedding_gradient", gpu.to_host(indices), rows))
    begins = xp.searchsorted(ranked, xp.arange(rows + 1)).astype(np.int64)
    out = xp.empty((rows, width), g.dtype)
    grid, tile = _tile(rows, width)
    launch(_add, grid, g, order.astype(np.int64), begins, out, rows, width, **tile)
    return out
