"""Tiles of lines in registers, each to one value; what is left of a long line is reduced in the same way again. Axes that do not
lie side by side go group by group, the last first.

The tree follows from the shape alone: values of a tile are combined as the compiled kernel does it, tiles in a tree of as many
values each. No atomics, the same bits on every run. 16-bit floats are widened as they are read, and results rounded once.
Next limit: memory.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ulpgrad.formats import INTEGERS, Format, bfloat16, bool_, compute_format, float16, float32, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.reduction import spec
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.spec import Op
from ulpgrad.kernels.triton_launch import launch, tl, triton, typed
from ulpgrad.kernels.triton_lines import Lines, Tile, cut, lines_of, of_lines, offsets, place, wide

FLOATS = [float16, bfloat16, float32, float64]
ALL = [bool_, *INTEGERS, *FLOATS]
PIECE = 16384


@triton.jit
def times(a, b):
    return a * b


@triton.jit
def extreme(v, KIND: tl.constexpr, IDENTITY: tl.constexpr):
    """The largest or smallest value of each line, NaN if there is one."""
    known = v
    if v.dtype.is_floating():
        known = tl.where(v == v, v, IDENTITY)
    best = tl.max(known, 1) if KIND == "max" else tl.min(known, 1)
    if v.dtype.is_floating():
        best = tl.where(tl.max((v != v).to(tl.int32), 1) > 0, float("nan"), best)
    return best


@triton.jit
def _reduce(
    out, x, center, lines, n, group_stride, line_stride, step, blocks, pieces, out_line, out_piece, count, correction,
    KIND: tl.constexpr, IDENTITY: tl.constexpr, CENTERED: tl.constexpr, DIVIDED: tl.constexpr,
    LINES: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    group, block, piece = place(blocks, pieces)
    at, inside = offsets(group, block, piece * VALUES, lines, n, group_stride, line_stride, step, LINES, VALUES)
    kept, there = of_lines(group, block, 0, 1, lines, LINES)
    v = tl.load(x + at, mask=inside, other=IDENTITY)
    if KIND == "all" or KIND == "any":
        v = (v != 0).to(tl.int32)
    elif v.dtype.is_floating():
        v = wide(v)
    elif KIND == "sum" or KIND == "prod":
        v = v.to(out.dtype.element_ty)
    if CENTERED:
        v = tl.where(inside, v - tl.load(center + kept, mask=there, other=0.0)[:, None], 0.0)
        v *= v
    if KIND == "sum":
        total = tl.sum(v, 1)
    elif KIND == "prod":
        total = tl.reduce(v, 1, times)
    elif KIND == "all":
        total = tl.min(v, 1)
    elif KIND == "any":
        total = tl.max(v, 1)
    else:
        total = extreme(v, KIND, IDENTITY)
    if DIVIDED:
        total /= tl.maximum(tl.zeros_like(total) + count - correction, 0.0)
    line = block * LINES + tl.arange(0, LINES)
    to = group * pieces * lines + line.to(tl.int64) * out_line + piece * out_piece
    tl.store(out + to, total.to(out.dtype.element_ty), mask=there)


def identity(kind: str, form: Format) -> Any:
    """What changes nothing."""
    if kind not in ("max", "min"):
        return int(kind in ("prod", "all"))
    if form.kind == "float":
        return -np.inf if kind == "max" else np.inf
    if form.kind == "bool":
        return int(kind == "min")
    limits = np.iinfo(form.storage)
    return int(limits.min if kind == "max" else limits.max)


def inner_format(kind: str, form: Format) -> Format:
    """The format of what is left between two tiles."""
    if kind in ("all", "any"):
        return bool_
    if form.kind == "float":
        return compute_format(form)
    return spec.total_format(form) if kind in ("sum", "prod") else form


def argument(array: Any, form: Format) -> Any:
    """An array as kernels take it: truth values as bytes."""
    return array.view(np.uint8) if form is bool_ else typed(array, form)


def strides_of_results(lines: Lines, tile: Tile) -> tuple[int, int]:
    """How far apart results of neighbouring lines and of neighbouring pieces lie in [outer, pieces, inner]."""
    return (tile.pieces, 1) if lines.step == 1 else (1, lines.lines)


def reduce_lines(
    kind: str, x: Any, form: Format, split: tuple[int, int, int], out: Any, out_form: Format, *,
    center: Any = None, count: int = 0, correction: float = 0.0,
) -> None:  # fmt: skip
    """Reduce the middle one of three axes of `x` into `out`; with `center`, what is summed is the square of the distance from it.
    With `count`, sums are divided by count - correction."""
    lines = lines_of(*split)
    tile = cut(lines, x.itemsize, PIECE)
    while tile.pieces > 1:
        x, _ = reduce_pieces(kind, x, form, lines, tile, center)
        form, center, lines = inner_format(kind, form), None, lines_of(split[0], tile.pieces, split[2])
        tile = cut(lines, x.itemsize, PIECE)
    _launch(kind, argument(out, out_form), x, form, lines, tile, center, count, correction)


def reduce_pieces(
    kind: str, x: Any, form: Format, lines: Lines, tile: Tile, center: Any = None
) -> tuple[Any, tuple[int, int]]:
    """What the pieces of each line come to, as [outer, pieces, inner], and how far apart results of neighbouring lines and of
    neighbouring pieces lie there."""
    outer, inner = (lines.lines, 1) if lines.step == 1 else (lines.groups, lines.lines)
    between = inner_format(kind, form)
    out = gpu.empty((outer, tile.pieces, inner), between.storage)
    _launch(kind, argument(out, between), x, form, lines, tile, center)
    return out, strides_of_results(lines, tile)


def _launch(
    kind: str, out: Any, x: Any, form: Format, lines: Lines, tile: Tile, center: Any, count: int = 0,
    correction: float = 0.0,
) -> None:  # fmt: skip
    launch(_reduce, (tile.programs,), out, argument(x, form), center, lines.lines, lines.n, *lines.strides, tile.blocks,
           tile.pieces, *strides_of_results(lines, tile), count, correction, KIND=kind, IDENTITY=identity(kind, form),
           CENTERED=center is not None, DIVIDED=count > 0, **tile.constants)  # fmt: skip


def last_group(shape: tuple[int, ...], axis: spec.Axes) -> spec.Axes:
    """The last of the axes that lie side by side; axes of size 1 part nothing."""
    axes = sorted(a for a in axis if shape[a] != 1)
    first = axes[-1]
    while first - 1 in axes or (first > axes[0] and shape[first - 1] == 1):
        first -= 1
    return tuple(a for a in axes if a >= first)


def reduce(kind: str, x: Any, form: Format, axis: spec.Axes, out: Any, out_form: Format, count: int = 0) -> None:
    """Reduce any axes of `x`, which is C-contiguous and not empty, into `out`."""
    while not spec.side_by_side(x, axis=axis):
        some, between = last_group(x.shape, axis), inner_format(kind, form)
        part = gpu.empty(spec.result_shape(x.shape, some, True), between.storage)
        reduce_lines(kind, x, form, spec.split(x.shape, some), part, between)
        x, form = part, between
    reduce_lines(kind, x, form, spec.split(x.shape, axis), out, out_form, count=count)


def results(x: Any, axis: spec.Axes, keepdims: bool, form: Format, of_nothing: float) -> tuple[Any, bool]:
    """Memory for results, and whether something is left to compute: over no values they are `of_nothing`."""
    shape = spec.result_shape(x.shape, axis, keepdims)
    if x.size:
        return gpu.empty(shape, form.storage), True
    return gpu.xp().full(shape, form.encode(np.asarray(of_nothing, np.float64)).item(), form.storage), False


Compute = Callable[[Any, spec.Axes, bool], Any]


def in_memory_order(x: Any, axis: spec.Axes, keepdims: bool, compute: Compute) -> Any:
    """A reduction of an array of any layout: axes are taken in the order they have in memory, and nothing is copied that
    has no gaps."""
    if x.flags.c_contiguous:
        return compute(x, axis, keepdims)
    order = tuple(sorted(range(x.ndim), key=lambda a: -x.strides[a]))
    moved = x.transpose(order)
    if not moved.flags.c_contiguous:
        return compute(gpu.contiguous(x), axis, keepdims)
    back = tuple(sorted(range(x.ndim), key=order.__getitem__))
    found = compute(moved, tuple(back[a] for a in axis), True).transpose(back)
    return gpu.contiguous(found).reshape(spec.result_shape(x.shape, axis, keepdims))


OF_NOTHING = {"prod": 1, "all": 1, "mean": np.nan, "var": np.nan}


def _register(op: Op, kind: str, formats: Sequence[Format]) -> None:
    def build(request: Request) -> Callable[..., Any]:
        form, out_form = _formats(request)

        def compute(x: Any, axis: spec.Axes, keepdims: bool) -> Any:
            out, is_open = results(x, axis, keepdims, out_form, OF_NOTHING.get(op.name, 0))
            if is_open:
                reduce(kind, x, form, axis, out, out_form, spec.count(x, axis) if op is spec.mean else 0)
            return out

        return lambda x, *, axis, keepdims: in_memory_order(x, axis, keepdims, compute)

    kernel(op, "cuda/triton-tree", rank=60, formats=formats, build=True, replays=True)(build)


def _formats(request: Request) -> tuple[Format, Format]:
    (form,) = request.formats
    assert form is not None
    return form, request.op.result_formats((form,), request.params)[0]


for _op in (spec.sum, spec.prod, spec.max, spec.min, spec.all, spec.any):
    _register(_op, _op.name, ALL)
_register(spec.mean, "sum", FLOATS)


@kernel(spec.var, "cuda/triton-tree", rank=60, formats=FLOATS, build=True)
def var(request: Request) -> Callable[..., Any]:
    form, _ = _formats(request)
    between = compute_format(form)

    def compute(x: Any, axis: spec.Axes, keepdims: bool, correction: float) -> Any:
        out, is_open = results(x, axis, keepdims, form, np.nan)
        if not is_open:
            return out
        if not spec.side_by_side(x, axis=axis):
            kept = tuple(a for a in range(x.ndim) if a not in axis)
            x = gpu.contiguous(x.transpose((*kept, *axis)))
            axis = tuple(range(len(kept), x.ndim))
        split, count = spec.split(x.shape, axis), spec.count(x, axis)
        center = gpu.empty(out.shape, between.storage)
        reduce_lines("sum", x, form, split, center, between, count=count)
        reduce_lines("sum", x, form, split, out, form, center=center, count=count, correction=correction)
        return out

    def run(x: Any, *, axis: spec.Axes, keepdims: bool, correction: float) -> Any:
        return in_memory_order(x, axis, keepdims, lambda x, axes, keep: compute(x, axes, keep, float(correction)))

    return run
