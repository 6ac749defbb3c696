"""Powers of two instead of e, no mask where all of a block is seen, and blocks, warps and stages for each size of head.

The scale takes the logarithm of 2 with it, so that a weight is one multiply-add and one instruction for the power. Causal blocks
left of the diagonal and whole blocks of keys skip every comparison; the longest rows begin first. From sm_90 on keys and values
come by tensor memory access, which computes no addresses, unless there are lengths, behind which nothing may be read. Next limit:
products wait for exponentials of their own program; warps that specialise would overlap the two.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ulpgrad.kernels import gpu
from ulpgrad.kernels.attention import spec
from ulpgrad.kernels.attention.spec import Dropout
from ulpgrad.kernels.attention.triton_fused import deltas, refusal as too_wide
from ulpgrad.kernels.attention.triton_operands import (
    FORMATS,
    block_of,
    dropping,
    format_of,
    four,
    given,
    kept,
    keys_seen,
    lengths_of,
    mask_of,
    masked,
    precision,
    queries_that_see,
    reach,
    stacked,
    steps,
    there,
    to_keys,
    to_queries,
)
from ulpgrad.kernels.attention.visible import Window
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, descriptor, launch, tl, triton

LOG2_E = 1 / math.log(2)


class Blocks(NamedTuple):
    """Rows of queries and of keys of a block, warps, and stages of the pipeline that loads them."""

    m: int
    n: int
    warps: int
    stages: int

    def options(self) -> dict[str, int]:
        return {"M": self.m, "N": self.n, "num_warps": self.warps, "num_stages": self.stages}


# By architecture, bits of a value and the widest head (features, rounded up to a power of two), the first that holds it.
FORWARD = {
    (80, 16): {32: Blocks(128, 64, 4, 4), 64: Blocks(128, 64, 4, 3), 128: Blocks(128, 64, 8, 3), 256: Blocks(64, 32, 8, 1)},
    (80, 32): {64: Blocks(64, 32, 8, 2), 128: Blocks(16, 32, 8, 1), 256: Blocks(16, 16, 8, 1)},
    (90, 16): {32: Blocks(128, 128, 4, 3), 64: Blocks(128, 128, 8, 3), 128: Blocks(128, 128, 8, 2), 256: Blocks(128, 64, 8, 2)},
    (90, 32): {64: Blocks(64, 32, 8, 2), 128: Blocks(16, 32, 8, 1), 256: Blocks(16, 16, 8, 1)},
}  # fmt: skip
GRADIENT = {
    (80, 16): {64: Blocks(64, 64, 8, 2), 128: Blocks(64, 64, 8, 2), 256: Blocks(32, 32, 8, 1)},
    (80, 32): {64: Blocks(32, 32, 8, 2), 256: Blocks(16, 16, 8, 1)},
    (90, 16): {64: Blocks(64, 128, 8, 2), 128: Blocks(64, 128, 8, 2), 256: Blocks(32, 32, 8, 1)},
    (90, 32): {64: Blocks(32, 32, 8, 2), 256: Blocks(16, 16, 8, 1)},
}  # fmt: skip


# With dropout, whose words take registers too.
FORWARD_DROPPING = {
    (80, 16): {64: Blocks(128, 64, 8, 3), 128: Blocks(64, 64, 8, 2), 256: Blocks(64, 32, 8, 1)},
    (80, 32): {64: Blocks(32, 32, 8, 2), 128: Blocks(16, 32, 8, 1), 256: Blocks(16, 16, 8, 1)},
    (90, 16): {64: Blocks(128, 64, 8, 3), 128: Blocks(128, 64, 8, 2), 256: Blocks(64, 64, 8, 2)},
    (90, 32): FORWARD[90, 32],
}
GRADIENT_DROPPING = {
    (80, 16): {128: Blocks(64, 32, 8, 2), 256: Blocks(32, 32, 8, 1)},
    (80, 32): GRADIENT[80, 32],
    (90, 16): {128: Blocks(64, 32, 8, 2), 256: Blocks(32, 32, 8, 1)},
    (90, 32): GRADIENT[90, 32],
}


def blocks_for(table: dict[tuple[int, int], dict[int, Blocks]], q: Any, widest: int) -> Blocks:
    """The row of the newest architecture that is not newer than the device's."""
    bits = 8 * q.dtype.itemsize
    newest = max((arch for arch, wide in table if wide == bits and arch <= gpu.generation()), default=80)
    rows = table[newest, bits]
    return rows[min(size for size in rows if size >= widest)]


def refusal(request: Request) -> str | None:
    """A scale that is not positive: the largest score is sought before it is scaled."""
    return too_wide(request) or (None if request.params["scale"] > 0 else "takes a positive scale")


@triton.jit
def _loaded(x, batch, head, start, row_step, size, width, ROWS: tl.constexpr, WIDTH: tl.constexpr, TMA: tl.constexpr,
            EDGE: tl.constexpr):  # fmt: skip
    """Rows of an operand from `start` on: from a descriptor of all of it, or a pointer to those of this head."""
    if TMA:
        return x.load([batch.to(tl.int32), head.to(tl.int32), start, 0]).reshape(ROWS, WIDTH)
    else:  # noqa: RET505 (Triton compiles what follows a return too)
        rows, i = tl.arange(0, ROWS), tl.arange(0, WIDTH)[None, :]
        x += start * (batch * 0 + row_step) + rows[:, None] * row_step + i  # 64 bits wide, as batch is
        inside = i < width
        if EDGE:
            inside = (start + rows < size)[:, None] & inside
        return tl.load(x, mask=inside, other=0)


@triton.jit
def _sweep(
    top, total, result, own, k, v, mask, batch, shared, begin, end, rows, length, keys, left, right, place, d, e, k_row, v_row,
    mask_row, mask_column, scale, first, all_keys, factor, limit, k0, k1, c0, c1, c2, c3,
    DROPOUT: tl.constexpr, EDGE: tl.constexpr, IS_CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASK: tl.constexpr, N: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, TMA: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The keys from begin to end; EDGE where some of them may not be seen."""
    for start in range(begin, end, N):
        at = start + tl.arange(0, N)
        key = _loaded(k, batch, shared, start, k_row, keys, d, N, D, TMA, EDGE)
        s = tl.dot(own, tl.trans(key), input_precision=PRECISION)
        if EDGE:
            if MASK == 2:  # what is added takes the same factor as the scores
                s = masked(s * (scale * 0.6931471805599453), mask, rows[:, None], at[None, :], length, keys, left,
                           right, place, mask_row, mask_column, IS_CAUSAL, WINDOW, MASK) * 1.4426950408889634  # fmt: skip
            else:
                s = masked(s * scale, mask, rows[:, None], at[None, :], length, keys, left, right, place, mask_row,
                           mask_column, IS_CAUSAL, WINDOW, MASK)  # fmt: skip
            higher = tl.maximum(top, tl.max(s, 1))
            base = tl.where(higher == -float("inf"), 0, higher)
            weights = tl.exp2(s - base[:, None])
        else:
            higher = tl.maximum(top, tl.max(s, 1) * scale)
            base = tl.where(higher == -float("inf"), 0, higher)
            weights = tl.exp2(s * scale - base[:, None])
        shrink = tl.exp2(top - base)
        value = _loaded(v, batch, shared, start, v_row, keys, e, N, E, TMA, EDGE)
        total = total * shrink + tl.sum(weights, 1)
        if DROPOUT != 0:
            seen = kept(first + rows, start, all_keys, limit, k0, k1, c0, c1, c2, c3, DROPOUT, N, False)
            weights = tl.where(seen, weights, 0.0)
        result = tl.dot(weights.to(value.dtype), value, result * shrink[:, None], input_precision=PRECISION)
        top = higher
    return top, total, result


@triton.jit
def attention_forward_tuned(
    y, lse, q, k, v, mask, query_lengths, key_lengths, heads, share, length, keys, left, right, d, e, q_batch, q_head, q_row,
    k_batch, k_head, k_row, v_batch, v_head, v_row, mask_batch, mask_head, mask_row, mask_column, scale,
    factor, limit, k0, k1, c0, c1, c2, c3,
    LENGTHS: tl.constexpr, LOWER_RIGHT: tl.constexpr, DROPOUT: tl.constexpr,
    IS_CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASK: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
    E: tl.constexpr, TMA: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(length, M)
    block, which = blocks - 1 - tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    batch, head = which // heads, which % heads
    all_rows, all_keys = length, keys  # in memory; from here on those that count
    length, keys, place = there(query_lengths, key_lengths, batch, length, keys, LENGTHS, LOWER_RIGHT)
    rows = block * M + tl.arange(0, M)
    i, j = tl.arange(0, D)[None, :], tl.arange(0, E)[None, :]
    if not TMA:
        k += batch * k_batch + head // share * k_head
        v += batch * v_batch + head // share * v_head
    mask += batch * mask_batch + head * mask_head
    own = tl.load(q + batch * q_batch + head * q_head + rows.to(tl.int64)[:, None] * q_row + i,
                  mask=(rows < length)[:, None] & (i < d), other=0)  # fmt: skip
    top = tl.full((M,), -float("inf"), tl.float32)
    total = tl.zeros((M,), tl.float32)
    result = tl.zeros((M, E), tl.float32)
    begin, end = keys_seen(block * M + place, keys, left, right, IS_CAUSAL, WINDOW, M, N)
    whole = keys // N * N
    if IS_CAUSAL:
        whole = tl.minimum(whole, tl.maximum(block * M + place, 0) // N * N)
    if MASK == 0 and not WINDOW:
        top, total, result = _sweep(
            top, total, result, own, k, v, mask, batch, head // share, 0, whole, rows, length, keys, left, right, place,
            d, e, k_row, v_row, mask_row, mask_column, scale, which * all_rows, all_keys,
            factor, limit, k0, k1, c0, c1, c2, c3, DROPOUT, False, IS_CAUSAL, WINDOW, MASK, N, D, E, TMA, PRECISION,
        )  # fmt: skip
    else:
        whole = begin
    top, total, result = _sweep(
        top, total, result, own, k, v, mask, batch, head // share, whole, end, rows, length, keys, left, right, place,
        d, e, k_row, v_row, mask_row, mask_column, scale, which * all_rows, all_keys,
        factor, limit, k0, k1, c0, c1, c2, c3, DROPOUT, True, IS_CAUSAL, WINDOW, MASK, N, D, E, TMA, PRECISION,
    )  # fmt: skip
    result /= tl.where(total == 0, 1, total)[:, None]
    if DROPOUT != 0:
        result *= factor
    sums = (top + tl.log2(total)) * 0.6931471805599453
    if LENGTHS % 2 == 1:  # rows that are none
        sums, result = tl.where(rows < length, sums, -float("inf")), tl.where((rows < length)[:, None], result, 0)
    at = which * all_rows + rows
    tl.store(lse + at, sums, mask=rows < all_rows)
    tl.store(y + at[:, None] * e + j, result.to(y.dtype.element_ty), mask=(rows < all_rows)[:, None] & (j < e))


@triton.jit
def _keys_sweep(
    to_key, to_value, key, value, g, q, mask, lse, delta, batch, head, begin, end, at, length, keys, left, right, place,
    d, e, g_row, q_row, mask_row, mask_column, scale, first, first_key, all_keys, factor, limit, k0, k1, c0, c1, c2, c3,
    DROPOUT: tl.constexpr, EDGE: tl.constexpr, IS_CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASK: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr, D: tl.constexpr, E: tl.constexpr, TMA: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The queries from begin to end. Those behind the last have an lse that leaves no weight."""
    for start in range(begin, end, M):
        rows = start + tl.arange(0, M)
        query = _loaded(q, batch, head, start, q_row, length, d, M, D, TMA, True)
        grad = _loaded(g, batch, head, start, g_row, length, e, M, E, TMA, True)
        base = tl.load(lse + rows, mask=rows < length, other=float("inf")).to(tl.float32)
        base = tl.where(base == -float("inf"), float("inf"), base) * 1.4426950408889634
        own = tl.load(delta + rows, mask=rows < length, other=0)
        s = tl.dot(key, tl.trans(query), input_precision=PRECISION)
        if EDGE:
            s = masked(s * scale, mask, rows[None, :], at[:, None], length, keys, left, right, place, mask_row, mask_column,
                       IS_CAUSAL, WINDOW, MASK)  # fmt: skip
            weights = tl.exp2(s * 1.4426950408889634 - base[None, :])
        else:
            weights = tl.exp2(s * (scale * 1.4426950408889634) - base[None, :])
        to_key, to_value = to_keys(to_key, to_value, weights, query, value, grad, own, first + rows, first_key, all_keys,
                                   factor, limit, k0, k1, c0, c1, c2, c3, DROPOUT, N, PRECISION)  # fmt: skip
    return to_key, to_value


@triton.jit
def attention_keys_gradient_tuned(
    dk, dv, g, q, k, v, mask, query_lengths, key_lengths, lse, delta, heads, share, length, keys, left, right,
    d, e, g_batch, g_head, g_row, q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, mask_batch,
    mask_head, mask_row, mask_column, scale,
    factor, limit, k0, k1, c0, c1, c2, c3,
    LENGTHS: tl.constexpr, LOWER_RIGHT: tl.constexpr, DROPOUT: tl.constexpr,
    IS_CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASK: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
    E: tl.constexpr, TMA: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk and dv of a block of keys: scores stand transposed, (keys, queries), so that weights are a left operand as they are."""
    blocks = tl.cdiv(keys, N)
    block, which = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    batch, shared = which // (heads // share), which % (heads // share)
    all_rows, all_keys = length, keys  # in memory; from here on those that count
    length, keys, place = there(query_lengths, key_lengths, batch, length, keys, LENGTHS, LOWER_RIGHT)
    at = block * N + tl.arange(0, N)
    i, j = tl.arange(0, D)[None, :], tl.arange(0, E)[None, :]
    key_here, value_here = (at < keys)[:, None] & (i < d), (at < keys)[:, None] & (j < e)
    key = tl.load(k + batch * k_batch + shared * k_head + at.to(tl.int64)[:, None] * k_row + i, mask=key_here, other=0)
    value = tl.load(
        v + batch * v_batch + shared * v_head + at.to(tl.int64)[:, None] * v_row + j, mask=value_here, other=0
    )
    to_key = tl.zeros((N, D), tl.float32)
    to_value = tl.zeros((N, E), tl.float32)
    first, end = queries_that_see(block * N - place, length, left, right, IS_CAUSAL, WINDOW, M, N)
    seen = 0
    if IS_CAUSAL:  # the queries of the diagonal's blocks, which see some of the keys, then those that see all
        seen = tl.minimum(tl.cdiv(tl.maximum(block * N - place + N, 0), M) * M, length)
    if MASK != 0 or WINDOW:
        seen = end
    for head in range(shared * share, shared * share + share):
        here = (batch * heads + head) * all_rows
        rows_of_q, rows_of_g = q, g
        if not TMA:
            rows_of_q, rows_of_g = q + batch * q_batch + head * q_head, g + batch * g_batch + head * g_head
        of_head = mask + batch * mask_batch + head * mask_head
        if IS_CAUSAL or WINDOW or MASK != 0:
            to_key, to_value = _keys_sweep(
                to_key, to_value, key, value, rows_of_g, rows_of_q, of_head, lse + here, delta + here, batch,
                shared * 0 + head, first, seen, at, length, keys, left, right, place, d, e, g_row, q_row, mask_row,
                mask_column, scale, here, block * N, all_keys,
                factor, limit, k0, k1, c0, c1, c2, c3, DROPOUT, True, IS_CAUSAL, WINDOW, MASK, M, N, D, E, TMA,
                PRECISION,
            )  # fmt: skip
        if MASK == 0 and not WINDOW:
            to_key, to_value = _keys_sweep(
                to_key, to_value, key, value, rows_of_g, rows_of_q, of_head, lse + here, delta + here, batch,
                shared * 0 + head, seen, length, at, length, keys, left, right, place, d, e, g_row, q_row,
                mask_row, mask_column, scale, here, block * N, all_keys,
                factor, limit, k0, k1, c0, c1, c2, c3, DROPOUT, False, IS_CAUSAL, WINDOW, MASK, M, N, D, E, TMA,
                PRECISION,
            )  # fmt: skip
    if DROPOUT != 0:
        to_value *= factor
    if LENGTHS >= 2:  # keys that are none
        to_key, to_value = tl.where((at < keys)[:, None], to_key, 0), tl.where((at < keys)[:, None], to_value, 0)
    out = which * all_keys + at[:, None]
    tl.store(dk + out * d + i, (to_key * scale).to(dk.dtype.element_ty), mask=(at < all_keys)[:, None] & (i < d))
    tl.store(dv + out * e + j, to_value.to(dv.dtype.element_ty), mask=(at < all_keys)[:, None] & (j < e))


@triton.jit
def _queries_sweep(
    result, query, grad, base, own, k, v, mask, batch, shared, begin, end, rows, length, keys, left, right, place, d, e,
    k_row, v_row, mask_row, mask_column, scale, first, all_keys, factor, limit, k0, k1, c0, c1, c2, c3,
    DROPOUT: tl.constexpr, EDGE: tl.constexpr, IS_CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASK: tl.constexpr, N: tl.constexpr,
    D: tl.constexpr, E: tl.constexpr, TMA: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The keys from begin to end."""
    for start in range(begin, end, N):
        at = start + tl.arange(0, N)
        key = _loaded(k, batch, shared, start, k_row, keys, d, N, D, TMA, EDGE)
        value = _loaded(v, batch, shared, start, v_row, keys, e, N, E, TMA, EDGE)
        s = tl.dot(query, tl.trans(key), input_precision=PRECISION)
        if EDGE:
            s = masked(s * scale, mask, rows[:, None], at[None, :], length, keys, left, right, place, mask_row, mask_column,
                       IS_CAUSAL, WINDOW, MASK)  # fmt: skip
            weights = tl.exp2(s * 1.4426950408889634 - base[:, None])
        else:
            weights = tl.exp2(s * (scale * 1.4426950408889634) - base[:, None])
        result = to_queries(result, weights, key, value, grad, own, first + rows, start, all_keys, factor, limit,
                            k0, k1, c0, c1, c2, c3, DROPOUT, N, PRECISION)  # fmt: skip
    return result


@triton.jit
def attention_queries_gradient_tuned(
    dq, g, q, k, v, mask, query_lengths, key_lengths, lse, delta, heads, share, length, keys, left, right,
    d, e, g_batch, g_head, g_row, q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, mask_batch,
    mask_head, mask_row, mask_column, scale,
    factor, limit, k0, k1, c0, c1, c2, c3,
    LENGTHS: tl.constexpr, LOWER_RIGHT: tl.constexpr, DROPOUT: tl.constexpr,
    IS_CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASK: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
    E: tl.constexpr, TMA: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq of a block of queries."""
    blocks = tl.cdiv(length, M)
    block, which = blocks - 1 - tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    batch, head = which // heads, which % heads
    all_rows, all_keys = length, keys  # in memory; from here on those that count
    length, keys, place = there(query_lengths, key_lengths, batch, length, keys, LENGTHS, LOWER_RIGHT)
    rows, i, j = block * M + tl.arange(0, M), tl.arange(0, D)[None, :], tl.arange(0, E)[None, :]
    row, here = rows.to(tl.int64)[:, None], rows < length
    query = tl.load(q + batch * q_batch + head * q_head + row * q_row + i, mask=here[:, None] & (i < d), other=0)
    grad = tl.load(g + batch * g_batch + head * g_head + row * g_row + j, mask=here[:, None] & (j < e), other=0)
    base = tl.load(lse + which * all_rows + rows, mask=here, other=float("inf")).to(tl.float32)
    base = tl.where(base == -float("inf"), float("inf"), base) * 1.4426950408889634
    own = tl.load(delta + which * all_rows + rows, mask=here, other=0)
    mask += batch * mask_batch + head * mask_head
    if not TMA:
        k += batch * k_batch + head // share * k_head
        v += batch * v_batch + head // share * v_head
    result = tl.zeros((M, D), tl.float32)
    begin, end = keys_seen(block * M + place, keys, left, right, IS_CAUSAL, WINDOW, M, N)
    whole = keys // N * N
    if IS_CAUSAL:
        whole = tl.minimum(whole, tl.maximum(block * M + place, 0) // N * N)
    if MASK == 0 and not WINDOW:
        result = _queries_sweep(
            result, query, grad, base, own, k, v, mask, batch, head // share, 0, whole, rows, length, keys, left, right,
            place, d, e, k_row, v_row, mask_row, mask_column, scale, which * all_rows, all_keys,
            factor, limit, k0, k1, c0, c1, c2, c3, DROPOUT, False, IS_CAUSAL, WINDOW, MASK, N, D, E, TMA, PRECISION,
        )  # fmt: skip
    else:
        whole = begin
    result = _queries_sweep(
        result, query, grad, base, own, k, v, mask, batch, head // share, whole, end, rows, length, keys, left, right,
        place, d, e, k_row, v_row, mask_row, mask_column, scale, which * all_rows, all_keys,
        factor, limit, k0, k1, c0, c1, c2, c3, DROPOUT, True, IS_CAUSAL, WINDOW, MASK, N, D, E, TMA, PRECISION,
    )  # fmt: skip
    if LENGTHS % 2 == 1:
        result = tl.where(here[:, None], result, 0)
    tl.store(dq + (which * all_rows + rows)[:, None] * d + i, (result * scale).to(dq.dtype.element_ty),
             mask=(rows < all_rows)[:, None] & (i < d))  # fmt: skip


def by_descriptor(*arrays: Any) -> bool:
    """Whether the tensor memory accelerator can read these: it wants strides and addresses in steps of 16 bytes."""
    return gpu.capability() >= 90 and all(
        a.data.ptr % 16 == 0 and all(s > 0 and s % 16 == 0 for s in a.strides[:3]) for a in arrays if a.size
    )


def described(a: Any, rows: int, width: int, tma: bool) -> Any:
    return descriptor(a, format_of(a), (1, 1, rows, width)) if tma else given(a)


@kernel(spec.attention, "cuda/triton-tuned", rank=60, formats=FORMATS, where=refusal)
def attention(
    q: Any, k: Any, v: Any, mask: Any, query_lengths: Any = None, key_lengths: Any = None, *, is_causal: bool, scale: float,
    window: Window = None, lower_right: bool = False, dropout: Dropout | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    xp, shape = gpu.xp(), q.shape[:-1]
    seen = mask_of(mask, q, k.shape[-2])
    q, k, v = (four(stacked(a)) for a in (q, k, v))
    (batch, heads, length, d), (keys, e) = q.shape, v.shape[2:]
    y, lse = xp.empty((batch, heads, length, e), q.dtype), xp.empty((batch, heads, length), "float32")
    wide, tall = block_of(d), block_of(e)
    near, seeing = reach(is_causal, window, length, keys)
    drops, drawing = dropping(dropout, keys)
    lengths, known = lengths_of(query_lengths, key_lengths, lower_right, q)
    table = FORWARD if dropout is None else FORWARD_DROPPING
    blocks, tma = blocks_for(table, q, max(wide, tall)), keys > 0 and not known["LENGTHS"] and by_descriptor(k, v)
    launch(
        attention_forward_tuned, (cdiv(length, blocks.m) * batch * heads,), given(y), lse, given(q),
        described(k, blocks.n, wide, tma), described(v, blocks.n, tall, tma), seen.array,
        *lengths, heads, heads // max(1, k.shape[1]), length, keys, *near, d, e, *steps(q), *steps(k), *steps(v), *seen.steps,
        float(scale) * LOG2_E, *drops,
        **known, **seeing, **drawing, MASK=seen.kind, D=wide, E=tall, TMA=tma, PRECISION=precision(q), **blocks.options(),
    )  # fmt: skip
    return y.reshape(*shape, e), lse.reshape(shape)


@kernel(spec.attention_gradient, "cuda/triton-tuned", rank=60, formats=FORMATS, where=refusal)
def attention_gradient(
    g: Any, q: Any, k: Any, v: Any, mask: Any, y: Any, lse: Any, query_lengths: Any = None, key_lengths: Any = None, *,
    is_causal: bool, scale: float, window: Window = None, lower_right: bool = False, dropout: Dropout | None = None,
) -> tuple[Any, Any, Any]:  # fmt: skip
    xp, shapes = gpu.xp(), (q.shape, k.shape, v.shape)
    seen = mask_of(mask, q, k.shape[-2])
    g, q, k, v, y = (four(stacked(a)) for a in (g, q, k, v, y))
    (batch, heads, length, d), (keys, e) = q.shape, v.shape[2:]
    lse, delta = gpu.contiguous(lse), deltas(g, y)
    wide, tall = block_of(d), block_of(e)
    dq, dk, dv = (xp.empty(a.shape, a.dtype) for a in (q, k, v))
    near, seeing = reach(is_causal, window, length, keys)
    drops, drawing = dropping(dropout, keys)
    blocks = blocks_for(GRADIENT if dropout is None else GRADIENT_DROPPING, q, max(wide, tall))
    lengths, known = lengths_of(query_lengths, key_lengths, lower_right, q)
    numbers = (seen.array, *lengths, given(lse), delta, heads, heads // max(1, k.shape[1]), length, keys, *near, d, e, *steps(g),
    *steps(q), *steps(k), *steps(v), *seen.steps, float(scale), *drops)  # fmt: skip
    options = {**known, **seeing, **drawing, "MASK": seen.kind, "D": wide, "E": tall, "PRECISION": precision(q),
               **blocks.options()}  # fmt: skip
    tma = length > 0 and not known["LENGTHS"] and by_descriptor(q, g)
    launch(
        attention_keys_gradient_tuned, (cdiv(keys, blocks.n) * batch * k.shape[1],), given(dk), given(dv),
        described(g, blocks.m, tall, tma), described(q, blocks.m, wide, tma), given(k), given(v), *numbers, TMA=tma,
        **options,
    )  # fmt: skip
    tma = keys > 0 and not known["LENGTHS"] and by_descriptor(k, v)
    launch(
        attention_queries_gradient_tuned, (cdiv(length, blocks.m) * batch * heads,), given(dq), given(g), given(q),
        described(k, blocks.n, wide, tma), described(v, blocks.n, tall, tma), *numbers, TMA=tma, **options,
    )  # fmt: skip
    return dq.reshape(shapes[0]), dk.reshape(shapes[1]), dv.reshape(shapes[2])
