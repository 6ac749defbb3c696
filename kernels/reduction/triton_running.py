"""Running sums and products, tile by tile: a scan within each tile. Long lines are read twice: for the total of each piece first,
which then run on in the same way, and for the scan, which begins with what the pieces before came to.

The order of additions follows from the shape alone. Next limit: memory.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ulpgrad.formats import Format
from ulpgrad.kernels import gpu
from ulpgrad.kernels.reduction import spec
from ulpgrad.kernels.reduction.triton_tree import ALL, argument, inner_format, reduce_pieces
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.spec import Op
from ulpgrad.kernels.triton_launch import launch, tl, triton
from ulpgrad.kernels.triton_lines import cut, lines_of, offsets, place, wide

PIECE = 4096


@triton.jit
def _scan(
    out, x, totals, lines, n, group_stride, line_stride, step, blocks, pieces, total_line, total_piece,
    KIND: tl.constexpr, LINES: tl.constexpr, VALUES: tl.constexpr, LONG: tl.constexpr,
):  # fmt: skip
    group, block, piece = place(blocks, pieces)
    at, inside = offsets(group, block, piece * VALUES, lines, n, group_stride, line_stride, step, LINES, VALUES)
    v = tl.load(x + at, mask=inside, other=0)
    if v.dtype.is_floating():
        v = wide(v)
    else:
        v = v.to(out.dtype.element_ty)
    v = tl.cumsum(v, 1) if KIND == "sum" else tl.cumprod(v, 1)
    if LONG:
        line = block * LINES + tl.arange(0, LINES)
        at_total = group * pieces * lines + line.to(tl.int64) * total_line + (piece - 1) * total_piece
        known = line < tl.where(piece > 0, lines, 0)
        before = tl.load(totals + at_total, mask=known, other=0 if KIND == "sum" else 1)
        v = v + before[:, None] if KIND == "sum" else v * before[:, None]
    tl.store(out + at, v.to(out.dtype.element_ty), mask=inside)


def run_along(kind: str, x: Any, form: Format, split: tuple[int, int, int], out: Any, out_form: Format) -> None:
    """Running sums or products along the middle one of three axes of `x`, into `out`."""
    outer, n, inner = split
    lines = lines_of(outer, n, inner)
    tile = cut(lines, x.itemsize, PIECE)
    before, strides = None, (0, 0)
    if tile.pieces > 1:
        between = inner_format(kind, form)
        totals, strides = reduce_pieces(kind, x, form, lines, tile)
        before = gpu.empty(totals.shape, between.storage)
        run_along(kind, totals, between, (outer, tile.pieces, inner), before, between)
    launch(_scan, (tile.programs,), argument(out, out_form), argument(x, form), before, lines.lines, lines.n,
           *lines.strides, tile.blocks, tile.pieces, *strides, KIND=kind, LONG=before is not None,
           **tile.constants)  # fmt: skip


def _register(op: Op, kind: str) -> None:
    def build(request: Request) -> Callable[..., Any]:
        form = request.formats[0]
        assert form is not None
        out_form = op.result_formats((form,), request.params)[0]

        def run(x: Any, *, axis: int) -> Any:
            out = gpu.empty(x.shape, out_form.storage)
            if out.size:
                around = (math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))
                run_along(kind, x, form, around, out, out_form)
            return out

        return run

    kernel(op, "cuda/triton-running", rank=60, formats=ALL, contiguous=True, build=True)(build)


_register(spec.cumulative_sum, "sum")
_register(spec.cumulative_prod, "prod")
