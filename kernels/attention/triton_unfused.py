"""Products and a softmax with the whole matrix of scores in memory: every step a kernel of its own, in the obvious order.

Keys and values that serve several heads of queries are found by their strides, not repeated. Next limit: the scores, which are
written and read four times where one pass over keys and values would do, and grow with the square of the length.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.formats import bool_, float32, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.attention import spec
from ulpgrad.kernels.attention.spec import Dropout
from ulpgrad.kernels.attention.triton_operands import (
    bits_of,
    dropping,
    four,
    kept,
    mask_of,
    masked,
    number,
    precision,
    reach,
    stacked,
    steps,
)
from ulpgrad.kernels.attention.visible import Window
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

FORMATS = (float32, float64, bool_)
ROWS, COLUMNS = 32, 64  # of the softmax


@triton.jit
def attention_product(
    c, a, b, heads, a_share, b_share, repeats, rows, columns, depth, c_batch, c_head, c_row,
    a_batch, a_head, a_row, a_column, b_batch, b_head, b_row, b_column, scale,
    M: tl.constexpr, N: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """c = scale * a @ b, head by head, each summed over `repeats` heads in a row; fewer heads of a or b are shared."""
    across = tl.cdiv(columns, N)
    tiles = tl.cdiv(rows, M) * across
    tile, which = tl.program_id(0) % tiles, (tl.program_id(0) // tiles).to(tl.int64)
    batch, head = which // heads, which % heads
    i = (tile // across).to(tl.int64) * M + tl.arange(0, M)[:, None]
    j = (tile % across).to(tl.int64) * N + tl.arange(0, N)[None, :]
    down, along = tl.arange(0, DEPTH)[:, None].to(tl.int64), tl.arange(0, DEPTH)[None, :].to(tl.int64)
    total = tl.zeros((M, N), c.dtype.element_ty)
    for repeat in range(repeats):
        left = a + batch * a_batch + (head * repeats + repeat) // a_share * a_head + i * a_row
        right = b + batch * b_batch + (head * repeats + repeat) // b_share * b_head + j * b_column
        for k in range(0, depth, DEPTH):
            x = tl.load(left + (k + along) * a_column, mask=(i < rows) & (k + along < depth), other=0)
            y = tl.load(right + (k + down) * b_row, mask=(k + down < depth) & (j < columns), other=0)
            total = tl.dot(x, y, total, input_precision=PRECISION, out_dtype=c.dtype.element_ty)
    out = c + batch * c_batch + head * c_head + i * c_row + j
    tl.store(out, total * number(scale, c.dtype.element_ty), mask=(i < rows) & (j < columns))


@triton.jit
def attention_softmax(
    s, lse, mask, heads, length, keys, left, right, place, mask_batch, mask_head, mask_row, mask_column,
    factor, limit, k0, k1, c0, c1, c2, c3,
    IS_CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASK: tl.constexpr, DROPOUT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Rows of scores become weights, in place: one pass for their largest values and sums, one to write, less what dropout
    takes."""
    blocks = tl.cdiv(length, ROWS)
    which = (tl.program_id(0) // blocks).to(tl.int64)
    rows = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    at = tl.arange(0, COLUMNS)[None, :]
    mask += which // heads * mask_batch + which % heads * mask_head
    row = s + (which * length + rows)[:, None] * keys
    top = tl.full((ROWS,), -float("inf"), s.dtype.element_ty)
    total = tl.zeros((ROWS,), s.dtype.element_ty)
    for start in range(0, keys, COLUMNS):
        inside = (rows < length)[:, None] & (start + at < keys)
        x = masked(tl.load(row + start + at, mask=inside, other=0), mask, rows[:, None], start + at, length, keys,
                   left, right, place, mask_row, mask_column, IS_CAUSAL, WINDOW, MASK)  # fmt: skip
        higher = tl.maximum(top, tl.max(x, 1))
        base = tl.where(higher == -float("inf"), 0, higher)
        total = total * tl.exp(top - base) + tl.sum(tl.exp(x - base[:, None]), 1)
        top = higher
    base = tl.where(top == -float("inf"), 0, top)
    norm = tl.where(total == 0, 1, total)
    for start in range(0, keys, COLUMNS):
        inside = (rows < length)[:, None] & (start + at < keys)
        x = masked(tl.load(row + start + at, mask=inside, other=0), mask, rows[:, None], start + at, length, keys,
                   left, right, place, mask_row, mask_column, IS_CAUSAL, WINDOW, MASK)  # fmt: skip
        weight = tl.exp(x - base[:, None]) / norm[:, None]
        if DROPOUT != 0:
            seen = kept(which * length + rows, start, keys, limit, k0, k1, c0, c1, c2, c3, DROPOUT, COLUMNS, False)
            weight = tl.where(seen, weight * number(factor, s.dtype.element_ty), 0.0)
        tl.store(row + start + at, weight, mask=inside)
    tl.store(lse + which * length + rows, top + tl.log(total), mask=rows < length)


@triton.jit
def attention_softmax_gradient(
    s, wanted, g, y, lse, mask, heads, length, keys, left, right, place, e, g_batch, g_head, g_row, y_batch, y_head, y_row,
    mask_batch, mask_head, mask_row, mask_column, scale,
    factor, limit, k0, k1, c0, c1, c2, c3,
    IS_CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASK: tl.constexpr, DROPOUT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Rows of scores become weights, less what dropout takes, and the gradients of the weights those of the scores, both in
    place."""
    blocks = tl.cdiv(length, ROWS)
    which = (tl.program_id(0) // blocks).to(tl.int64)
    batch, head = which // heads, which % heads
    rows = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    at = tl.arange(0, COLUMNS)[None, :]
    mask += batch * mask_batch + head * mask_head
    g += batch * g_batch + head * g_head + rows.to(tl.int64)[:, None] * g_row
    y += batch * y_batch + head * y_head + rows.to(tl.int64)[:, None] * y_row
    row = (which * length + rows)[:, None] * keys
    own = tl.zeros((ROWS,), s.dtype.element_ty)
    for start in range(0, e, COLUMNS):
        inside = (rows < length)[:, None] & (start + at < e)
        x = tl.load(g + start + at, mask=inside, other=0)
        own += tl.sum(x * tl.load(y + start + at, mask=inside, other=0), 1)
    base = tl.load(lse + which * length + rows, mask=rows < length, other=0)
    base = tl.where(base == -float("inf"), float("inf"), base)
    for start in range(0, keys, COLUMNS):
        inside = (rows < length)[:, None] & (start + at < keys)
        x = masked(tl.load(s + row + start + at, mask=inside, other=0), mask, rows[:, None], start + at, length, keys,
                   left, right, place, mask_row, mask_column, IS_CAUSAL, WINDOW, MASK)  # fmt: skip
        weight = tl.exp(x - base[:, None])
        change = tl.load(wanted + row + start + at, mask=inside, other=0)
        used = weight
        if DROPOUT != 0:
            seen = kept(which * length + rows, start, keys, limit, k0, k1, c0, c1, c2, c3, DROPOUT, COLUMNS, False)
            used = tl.where(seen, weight * number(factor, s.dtype.element_ty), 0.0)
            change = tl.where(seen, change * number(factor, s.dtype.element_ty), 0.0)
        tl.store(s + row + start + at, used, mask=inside)
        tl.store(
            wanted + row + start + at, weight * (change - own[:, None]) * number(scale, s.dtype.element_ty), mask=inside
        )


def product(c: Any, a: Any, b: Any, *, scale: float = 1.0, repeats: int = 1) -> Any:
    """c = scale * a @ b over four axes; b's (or, with `repeats`, c's) heads may be fewer than a's."""
    batch, heads, rows, columns = c.shape
    apart = [tuple(s // x.itemsize for s in x.strides) for x in (a, b)]
    m, depth = (64, 16) if c.dtype.itemsize == 8 else (128, 32)
    tiles = cdiv(rows, m) * cdiv(columns, 64)
    every = heads * repeats
    launch(
        attention_product, (tiles * batch * heads,), c, a, b, heads, every // max(1, a.shape[1]),
        every // max(1, b.shape[1]), repeats, rows, columns, a.shape[-1], *steps(c), *apart[0], *apart[1], bits_of(scale),
        M=m, N=64, DEPTH=depth, PRECISION=precision(b), num_warps=8, num_stages=3,
    )  # fmt: skip
    return c


def _dropping(dropout: Dropout | None, keys: int) -> tuple[tuple[Any, ...], dict[str, int]]:
    """As `dropping` says, but the factor as its bits: float64 is computed here too."""
    (factor, *others), constants = dropping(dropout, keys)
    return (factor if dropout is None else bits_of(factor), *others), constants


def _scores(q: Any, k: Any, scale: float) -> Any:
    """Scores of every query and key."""
    return product(gpu.xp().empty((*q.shape[:3], k.shape[2]), q.dtype), q, k.swapaxes(2, 3), scale=scale)


@kernel(spec.attention, "cuda/triton-unfused", rank=40, formats=FORMATS)
def attention(
    q: Any, k: Any, v: Any, mask: Any, *_: None, is_causal: bool, scale: float, window: Window = None,
    lower_right: bool = False, dropout: Dropout | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    xp, shape = gpu.xp(), q.shape[:-1]
    seen = mask_of(mask, q, k.shape[-2])
    q, k, v = (four(stacked(a)) for a in (q, k, v))
    s = _scores(q, k, scale)
    near, seeing = reach(is_causal, window, *s.shape[2:])
    drops, drawing = _dropping(dropout, s.shape[3])
    place = k.shape[2] - q.shape[2] if lower_right else 0
    y, lse = xp.empty((*q.shape[:3], v.shape[3]), q.dtype), xp.empty(q.shape[:3], s.dtype)
    launch(
        attention_softmax, (cdiv(q.shape[2], ROWS) * q.shape[0] * q.shape[1],), s, lse, seen.array, *s.shape[1:], *near,
        place, *seen.steps, *drops, **seeing, **drawing, MASK=seen.kind, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=8,
    )  # fmt: skip
    return product(y, s, v).reshape(*shape, v.shape[3]), lse.reshape(shape)


@kernel(spec.attention_gradient, "cuda/triton-unfused", rank=40, formats=FORMATS)
def attention_gradient(
    g: Any, q: Any, k: Any, v: Any, mask: Any, y: Any, lse: Any, *_: None, is_causal: bool, scale: float,
    window: Window = None, lower_right: bool = False, dropout: Dropout | None = None,
) -> tuple[Any, Any, Any]:  # fmt: skip
    xp, shapes = gpu.xp(), (q.shape, k.shape, v.shape)
    seen = mask_of(mask, q, k.shape[-2])
    g, q, k, v, y = (four(stacked(a)) for a in (g, q, k, v, y))
    share = q.shape[1] // max(1, k.shape[1])
    s = _scores(q, k, scale)
    near, seeing = reach(is_causal, window, *s.shape[2:])
    drops, drawing = _dropping(dropout, s.shape[3])
    place = k.shape[2] - q.shape[2] if lower_right else 0
    wanted = product(xp.empty_like(s), g, v.swapaxes(2, 3))
    launch(
        attention_softmax_gradient, (cdiv(q.shape[2], ROWS) * q.shape[0] * q.shape[1],), s, wanted, g, y, gpu.contiguous(lse),
        seen.array, *s.shape[1:], *near, place, v.shape[3], *steps(g), *steps(y), *seen.steps, bits_of(scale), *drops,
        **seeing, **drawing, MASK=seen.kind, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=8,
    )  # fmt: skip
    dq, dk, dv = (xp.empty(a.shape, a.dtype) for a in (q, k, v))
    product(dq, wanted, k)
    product(dk, wanted.swapaxes(2, 3), q, repeats=share)
    product(dv, s.swapaxes(2, 3), g, repeats=share)
    return dq.reshape(shapes[0]), dk.reshape(shapes[1]), dv.reshape(shapes[2])
