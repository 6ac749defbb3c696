"""One program for a few lines of any length, piece after piece: the sum so far is rescaled when a larger maximum turns up, so one
sweep finds maximum and sum together, and a second writes (Milakov and Gimelshein 2018). Lines lie along any axis.

Next limit: values are read from memory twice, and few long lines leave most of a GPU without work.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ulpgrad.kernels.softmax.triton_formulas import finite_or_zero, gradient_of, register, softmax_of, summand
from ulpgrad.kernels.triton_launch import launch, tl, triton
from ulpgrad.kernels.triton_lines import Lines, cut, offsets, place, wide

PIECE = 4096


@triton.jit
def _forward(
    out, x, lines, n, group_stride, line_stride, step, blocks,
    LOG: tl.constexpr, LINES: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    group, block, start = place(blocks, 1)
    kind: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    top = tl.full([LINES], float("-inf"), kind)
    total = tl.zeros([LINES], kind)
    for i in range(0, n, VALUES):
        at, inside = offsets(group, block, start + i, lines, n, group_stride, line_stride, step, LINES, VALUES)
        v = wide(tl.load(x + at, mask=inside, other=float("-inf")))
        new = tl.maximum(top, tl.max(v, 1))
        shift = finite_or_zero(new)
        total = total * tl.exp(top - shift) + tl.sum(tl.exp(v - shift[:, None]), 1)
        top = new
    shift = finite_or_zero(top)
    for i in range(0, n, VALUES):
        at, inside = offsets(group, block, start + i, lines, n, group_stride, line_stride, step, LINES, VALUES)
        v = wide(tl.load(x + at, mask=inside, other=0.0))
        y = softmax_of(v, shift[:, None], total[:, None], LOG)
        tl.store(out + at, y.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    out, g, y, lines, n, group_stride, line_stride, step, blocks,
    LOG: tl.constexpr, LINES: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    group, block, start = place(blocks, 1)
    kind: tl.constexpr = tl.float64 if y.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros([LINES], kind)
    for i in range(0, n, VALUES):
        at, inside = offsets(group, block, start + i, lines, n, group_stride, line_stride, step, LINES, VALUES)
        gs = wide(tl.load(g + at, mask=inside, other=0.0))
        ys = wide(tl.load(y + at, mask=inside, other=0.0))
        total += tl.sum(summand(gs, ys, LOG), 1)
    for i in range(0, n, VALUES):
        at, inside = offsets(group, block, start + i, lines, n, group_stride, line_stride, step, LINES, VALUES)
        gs = wide(tl.load(g + at, mask=inside, other=0.0))
        ys = wide(tl.load(y + at, mask=inside, other=0.0))
        tl.store(out + at, gradient_of(gs, ys, total[:, None], LOG).to(out.dtype.element_ty), mask=inside)


def online(arrays: Sequence[Any], lines: Lines, itemsize: int, log: bool, is_gradient: bool) -> None:
    tile = cut(lines, itemsize, PIECE)
    programs = lines.groups * tile.blocks
    launch(_backward if is_gradient else _forward, (programs,), *arrays, lines.lines, lines.n, *lines.strides,
           tile.blocks, LOG=log, **tile.constants)  # fmt: skip


register("cuda/triton-online", 40, __doc__, online)
