"""Whole lines in registers: values are read once and written once. Short lines share a program.

Next limit: memory. Lines of more than 32768 values (half as many in gradients, and in float64; 1024 where they do not lie side by
side) are split over programs.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ulpgrad.kernels.softmax.triton_formulas import gradient_of, register, softmax_of, summand
from ulpgrad.kernels.softmax.triton_split import split
from ulpgrad.kernels.triton_launch import launch, tl, triton
from ulpgrad.kernels.triton_lines import Lines, cut, offsets, place, wide

LONGEST, LONGEST_BACK = 32768, 16384
ACROSS = 16384  # values of a tile that runs across lines


@triton.jit
def _forward(
    out, x, lines, n, group_stride, line_stride, step, blocks,
    LOG: tl.constexpr, LINES: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    group, block, start = place(blocks, 1)
    at, inside = offsets(group, block, start, lines, n, group_stride, line_stride, step, LINES, VALUES)
    v = wide(tl.load(x + at, mask=inside, other=float("-inf")))
    v -= tl.max(v, 1)[:, None]
    total = tl.sum(tl.exp(v), 1)[:, None]
    tl.store(out + at, softmax_of(v, 0.0, total, LOG).to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    out, g, y, lines, n, group_stride, line_stride, step, blocks,
    LOG: tl.constexpr, LINES: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    group, block, start = place(blocks, 1)
    at, inside = offsets(group, block, start, lines, n, group_stride, line_stride, step, LINES, VALUES)
    gs = wide(tl.load(g + at, mask=inside, other=0.0))
    ys = wide(tl.load(y + at, mask=inside, other=0.0))
    total = tl.sum(summand(gs, ys, LOG), 1)[:, None]
    tl.store(out + at, gradient_of(gs, ys, total, LOG).to(out.dtype.element_ty), mask=inside)


def row(arrays: Sequence[Any], lines: Lines, itemsize: int, log: bool, is_gradient: bool) -> None:
    longest = (LONGEST_BACK if is_gradient else LONGEST) // (2 if itemsize == 8 else 1)
    tile = cut(lines, itemsize, longest, 4096 if lines.step == 1 else ACROSS)
    if tile.pieces > 1:
        split(arrays, lines, itemsize, log, is_gradient)
        return
    launch(_backward if is_gradient else _forward, (tile.programs,), *arrays, lines.lines, lines.n, *lines.strides,
           tile.blocks, LOG=log, **tile.constants)  # fmt: skip


register("cuda/triton-row", 60, __doc__, row)
