"""The tree of `triton_tree.py` for places: a tile gives its line's best value and where it is first, and what is left of a long
line goes through the same kernel again, which carries the places along.

The first of equal values is found whatever the tiles are, and so is the first NaN. Next limit: memory.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.formats import Format, compute_format
from ulpgrad.kernels import gpu
from ulpgrad.kernels.reduction import spec
from ulpgrad.kernels.reduction.triton_tree import ALL, PIECE, argument, extreme, identity, strides_of_results
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.spec import Op
from ulpgrad.kernels.triton_launch import launch, tl, triton
from ulpgrad.kernels.triton_lines import cut, lines_of, offsets, place, wide


@triton.jit
def _find(
    out, bests, x, places, lines, n, group_stride, line_stride, step, blocks, pieces, out_line, out_piece,
    KIND: tl.constexpr, IDENTITY: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr,
    LINES: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    group, block, piece = place(blocks, pieces)
    start = piece * VALUES
    at, inside = offsets(group, block, start, lines, n, group_stride, line_stride, step, LINES, VALUES)
    v = tl.load(x + at, mask=inside, other=IDENTITY)
    if v.dtype.is_floating():
        v = wide(v)
    best = extreme(v, KIND, IDENTITY)
    is_best = v == best[:, None]
    if v.dtype.is_floating():
        is_best |= (v != v) & (best != best)[:, None]
    value = tl.arange(0, VALUES)[None, :] + tl.zeros([LINES, 1], tl.int32)
    found = start + tl.min(tl.where(is_best & inside, value, VALUES), 1)
    line = block * LINES + tl.arange(0, LINES)
    there = line < lines
    if not FIRST:
        found = tl.load(places + group * group_stride + line.to(tl.int64) * line_stride + found * step, mask=there)
    to = group * pieces * lines + line.to(tl.int64) * out_line + piece * out_piece
    tl.store(out + to, found, mask=there)
    if not LAST:
        tl.store(bests + to, best.to(bests.dtype.element_ty), mask=there)


def find(kind: str, x: Any, form: Format, split: tuple[int, int, int], out: Any) -> None:
    """Where the middle one of three axes of `x` has its largest or smallest value, into `out`."""
    outer, n, inner = split
    places, between = None, compute_format(form) if form.kind == "float" else form
    while True:
        lines = lines_of(outer, n, inner)
        tile = cut(lines, x.itemsize, PIECE)
        is_last, shape = tile.pieces == 1, (outer, tile.pieces, inner)
        to = out if is_last else gpu.empty(shape, np.int64)
        bests = None if is_last else gpu.empty(shape, between.storage)
        launch(_find, (tile.programs,), to, None if bests is None else argument(bests, between), argument(x, form),
               places, lines.lines, lines.n, *lines.strides, tile.blocks, tile.pieces,
               *strides_of_results(lines, tile), KIND=kind, IDENTITY=identity(kind, form), FIRST=places is None,
               LAST=is_last, **tile.constants)  # fmt: skip
        if is_last:
            return
        x, form, places, n = bests, between, to, tile.pieces


def _register(op: Op, kind: str) -> None:
    def build(request: Request) -> Callable[..., Any]:
        form = request.formats[0]
        assert form is not None

        def run(x: Any, *, axis: int | None, keepdims: bool) -> Any:
            axes = tuple(range(x.ndim)) if axis is None else (axis,)
            out = gpu.empty(spec.result_shape(x.shape, axes, keepdims), np.int64)
            if out.size:
                find(kind, x, form, spec.split(x.shape, axes), out)
            return out

        return run

    kernel(op, "cuda/triton-index", rank=60, formats=ALL, contiguous=True, build=True)(build)


_register(spec.argmax, "max")
_register(spec.argmin, "min")
