"""A line's pieces go to programs of their own: each notes its maximum and its sum of exponentials, and a second launch combines
these and writes. Few long lines fill the GPU as well as many short ones.

Next limit: values are read twice, the second time from the L2 cache if they fit it.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ulpgrad.kernels import gpu
from ulpgrad.kernels.softmax.triton_formulas import finite_or_zero, gradient_of, register, softmax_of, summand
from ulpgrad.kernels.triton_launch import launch, tl, triton
from ulpgrad.kernels.triton_lines import Lines, cut, of_lines, offsets, place, power, wide

PIECE = 8192
LONG_PIECE = 32768  # of lines of which a program would combine more pieces than it has values


@triton.jit
def _tops(
    tops, totals, x, lines, n, group_stride, line_stride, step, blocks,
    pieces, LINES: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    group, block, piece = place(blocks, pieces)
    at, inside = offsets(group, block, piece * VALUES, lines, n, group_stride, line_stride, step, LINES, VALUES)
    v = wide(tl.load(x + at, mask=inside, other=float("-inf")))
    top = tl.max(v, 1)
    total = tl.sum(tl.exp(v - finite_or_zero(top)[:, None]), 1)
    kept, there = of_lines(group, block, piece, pieces, lines, LINES)
    tl.store(tops + kept, top, mask=there)
    tl.store(totals + kept, total, mask=there)


@triton.jit
def _forward(
    out, x, tops, totals, lines, n, group_stride, line_stride, step,
    blocks, pieces, LOG: tl.constexpr, LINES: tl.constexpr, VALUES: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    group, block, piece = place(blocks, pieces)
    kept, there = of_lines(group, block, 0, pieces, lines, LINES)
    each = tl.arange(0, PIECES)
    noted = kept[:, None] + (each.to(tl.int64) * lines)[None, :]
    is_noted = there[:, None] & (each < pieces)[None, :]
    parts = tl.load(tops + noted, mask=is_noted, other=float("-inf"))
    shift = finite_or_zero(tl.max(parts, 1))
    sums = tl.load(totals + noted, mask=is_noted, other=0.0)
    total = tl.sum(sums * tl.exp(parts - shift[:, None]), 1)
    at, inside = offsets(group, block, piece * VALUES, lines, n, group_stride, line_stride, step, LINES, VALUES)
    v = wide(tl.load(x + at, mask=inside, other=0.0))
    y = softmax_of(v, shift[:, None], total[:, None], LOG)
    tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _totals(
    totals, g, y, lines, n, group_stride, line_stride, step, blocks,
    pieces, LOG: tl.constexpr, LINES: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    group, block, piece = place(blocks, pieces)
    at, inside = offsets(group, block, piece * VALUES, lines, n, group_stride, line_stride, step, LINES, VALUES)
    gs = wide(tl.load(g + at, mask=inside, other=0.0))
    ys = wide(tl.load(y + at, mask=inside, other=0.0))
    kept, there = of_lines(group, block, piece, pieces, lines, LINES)
    tl.store(totals + kept, tl.sum(summand(gs, ys, LOG), 1), mask=there)


@triton.jit
def _backward(
    out, g, y, totals, lines, n, group_stride, line_stride, step,
    blocks, pieces, LOG: tl.constexpr, LINES: tl.constexpr, VALUES: tl.constexpr, PIECES: tl.constexpr,
):  # fmt: skip
    group, block, piece = place(blocks, pieces)
    kept, there = of_lines(group, block, 0, pieces, lines, LINES)
    each = tl.arange(0, PIECES)
    noted = kept[:, None] + (each.to(tl.int64) * lines)[None, :]
    total = tl.sum(tl.load(totals + noted, mask=there[:, None] & (each < pieces)[None, :], other=0.0), 1)
    at, inside = offsets(group, block, piece * VALUES, lines, n, group_stride, line_stride, step, LINES, VALUES)
    gs = wide(tl.load(g + at, mask=inside, other=0.0))
    ys = wide(tl.load(y + at, mask=inside, other=0.0))
    tl.store(out + at, gradient_of(gs, ys, total[:, None], LOG).to(out.dtype.element_ty), mask=inside)


def split(arrays: Sequence[Any], lines: Lines, itemsize: int, log: bool, is_gradient: bool) -> None:
    tile = cut(lines, itemsize, PIECE if lines.n <= PIECE**2 else LONG_PIECE)
    out, *operands = arrays
    xp, form = gpu.xp(), np.float64 if itemsize == 8 else np.float32
    scratch = [xp.empty((lines.groups, tile.pieces, lines.lines), form) for _ in range(1 if is_gradient else 2)]
    shape = (lines.lines, lines.n, *lines.strides, tile.blocks, tile.pieces)
    if is_gradient:
        launch(_totals, (tile.programs,), *scratch, *operands, *shape, LOG=log, **tile.constants)
    else:
        launch(_tops, (tile.programs,), *scratch, *operands, *shape, **tile.constants)
    launch(_backward if is_gradient else _forward, (tile.programs,), out, *operands, *scratch, *shape, LOG=log,
           PIECES=power(tile.pieces), **tile.constants)  # fmt: skip


register("cuda/triton-split", 50, __doc__, split)
