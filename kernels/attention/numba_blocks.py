"""Blocks of queries x keys with a running softmax, in Numba: the scores never leave the cache, and memory grows with the
length alone.

Forward has queries in lanes: scores are keys x queries, so that maxima and sums run down a block without crossing vectors.
Backward has keys in lanes, where four of its five products make rows as long as a block. Products are matmul's loops for
eight rows, operands of which are read transposed instead of being turned. Dropout's words are drawn for a row of a block at a
time, and again in backward. Next limit: these loops load and store sums that C++ keeps in registers.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ulpgrad.formats import Array, bool_, float32, float64
from ulpgrad.kernels.attention import spec
from ulpgrad.kernels.attention.visible import both_lengths
from ulpgrad.kernels.matmul.numba_parallel import add_product
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.numba_math import EXACT, INFINITY, ONE, ZERO, exp_of_shifted, log
from ulpgrad.kernels.random.numba_blocks import draw_lanes
from ulpgrad.kernels.random.philox import LOW64, threshold
from ulpgrad.kernels.registry import kernel

FORMATS = (float32, float64, bool_, *spec.INTEGERS)
LANES, ROWS = 128, 64  # of a block of scores
PARTS = 16  # that backward's work is at least cut into, where there are so many keys
NO_MASK, ALLOWED, ADDED = range(3)


@jit()
def _turned(x):  # type: ignore[no-untyped-def]
    out = np.empty((x.shape[1], x.shape[0]), x.dtype)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[j, i] = x[i, j]
    return out


@jit(fastmath=EXACT)
def _hide(row, line, is_added):  # type: ignore[no-untyped-def]
    """A row of scores under its line of the mask: added, or zero where a score counts."""
    if is_added:
        for j in range(len(row)):
            row[j] += line[j]
    else:
        for j in range(len(row)):
            row[j] = row[j] if line[j] == ZERO else -INFINITY


@jit(fastmath=EXACT)
def _scores(a, b, out, mask, row, lane, begin, end, scale, how):  # type: ignore[no-untyped-def]
    """out[:, begin:end] = a b * scale under a mask, whose values for this block begin at [row, lane]; axes of one value stand
    for all."""
    for i in range(len(a)):
        out[i, begin:end] = ZERO
    add_product(a, b, out, 0, len(b), begin, end)
    for i in range(len(a)):
        scores = out[i, begin:end]
        for j in range(len(scores)):
            scores[j] *= scale
        if how != NO_MASK:
            line = mask[row + i if len(mask) > 1 else 0]
            if len(line) > 1:
                _hide(scores, line[lane + begin : lane + end], how == ADDED)
            else:
                _hide(scores, np.full(len(scores), line[0]), how == ADDED)


@jit(fastmath=EXACT)
def _soften(s, out, top, total, factor, begin):  # type: ignore[no-untyped-def]
    """Scores become weights against the largest so far of their lane, and what was summed before follows."""
    top, total, factor = top[begin:], total[begin:], factor[begin:]
    factor[:] = top
    for i in range(len(s)):
        row = s[i, begin:]
        for j in range(len(row)):
            top[j] = row[j] if row[j] > top[j] else top[j]
    for j in range(len(top)):
        factor[j] = exp_of_shifted(factor[j] - (ZERO if top[j] == -INFINITY else top[j]))
        total[j] *= factor[j]
    for i in range(len(s)):
        row = s[i, begin:]
        for j in range(len(row)):
            row[j] = exp_of_shifted(row[j] - (ZERO if top[j] == -INFINITY else top[j]))
            total[j] += row[j]
    for i in range(len(out)):
        row = out[i, begin:]
        for j in range(len(row)):
            row[j] *= factor[j]


@jit()
def _draw(lanes, words, stream, first, count):  # type: ignore[no-untyped-def]
    """words[:count] are those of the stream from `first` on; `lanes` is room for their blocks."""
    low, high, key, _ = stream
    begin, behind = first // 4, first % 4
    draw_lanes(lanes[:, : (behind + count + 3) // 4], low, high, key, begin)
    for j in range(count):
        words[j] = lanes[(behind + j) % 4, (behind + j) // 4]


@jit(fastmath=EXACT)
def _attend(  # type: ignore[no-untyped-def]
    q, k, v, mask, y, lse, i0, place, scale, is_causal, how, drops, stream, share, weight, step
):  # fmt: skip
    """The results of queries from i0 on, one block of them; the first of all queries stands at `place` among the keys. `weight`
    is the index of the first one's first weight, `step` how many there are of a query."""
    lanes_of, words = np.empty((4, ROWS // 4 + 1), np.uint32), np.empty(ROWS, np.uint32)
    lanes, end = len(q), max(0, min(len(k), i0 + place + len(q))) if is_causal else len(k)
    turned, s, out = _turned(q), np.empty((ROWS, lanes), q.dtype), np.zeros((v.shape[1], lanes), q.dtype)
    top, total, factor = np.full(lanes, -INFINITY), np.zeros(lanes, q.dtype), np.empty(lanes, q.dtype)
    for j0 in range(0, end, ROWS):
        j1 = min(end, j0 + ROWS)
        begin = max(0, j0 - i0 - place) if is_causal else 0
        _scores(k[j0:j1], turned, s, mask, j0, i0, begin, lanes, scale, how)
        if is_causal:
            for j in range(max(j0, i0 + place + begin), j1):
                s[j - j0, begin : j - i0 - place] = -INFINITY
        _soften(s[: j1 - j0], out, top, total, factor, begin)
        if drops:
            for i in range(begin, lanes):
                _draw(lanes_of, words, stream, weight + i * step + j0, j1 - j0)
                for j in range(j1 - j0):
                    s[j, i] = s[j, i] if words[j] >= stream[3] else ZERO
        add_product(v[j0:j1].T, s, out, 0, j1 - j0, begin, lanes)
    for i in range(lanes):
        each = ONE / (ONE if total[i] == ZERO else total[i] * share)
        for c in range(len(out)):
            y[i, c] = out[c, i] * each
        lse[i] = top[i] + log(total[i])


@jit(parallel=True)
def _forward(  # type: ignore[no-untyped-def]
    q, k, v, mask, of_head, queries, keys, place, y, lse, scale, is_causal, how, drops, stream, share
):  # fmt: skip
    heads, length = q.shape[:2]
    shared, blocks = heads // max(1, len(k)), (length + LANES - 1) // LANES
    for task in prange(heads * blocks):
        h, turn = task // blocks, task % blocks
        block = turn // 2 if turn % 2 == 0 else blocks - 1 - turn // 2  # short ones beside long ones
        i0 = block * LANES
        i1 = min(length, i0 + LANES)
        own, end, seen = h // shared, min(i1, queries[h]), keys[h]
        if i0 < end:
            weight = (h * length + i0) * k.shape[1]
            _attend(q[h, i0:end], k[own, :seen], v[own, :seen], mask[of_head[h]], y[h, i0:end], lse[h, i0:end], i0, place[h],
                    scale, is_causal, how, drops, stream, share, weight, k.shape[1])  # fmt: skip
        for i in range(max(i0, end), i1):
            y[h, i, :] = ZERO
            lse[h, i] = -INFINITY


@jit(fastmath=EXACT)
def _go_back(  # type: ignore[no-untyped-def]
    g, q, k, keys, values, mask, middle, lse, dq, dk, dv, j0, place, scale, is_causal, how, drops, stream, share, weight, step
):  # fmt: skip
    """What one head of queries adds to the gradients by way of a block of keys from j0 on; `keys` and `values` are the block
    transposed, as dk and dv are. `weight` is the index of the head's first weight, `step` how many there are of a query."""
    lanes_of, words = np.empty((4, LANES // 4 + 1), np.uint32), np.empty(LANES, np.uint32)
    lanes, features = k.shape
    for i0 in range(max(0, j0 - place) // ROWS * ROWS if is_causal else 0, len(q), ROWS):
        i1 = min(len(q), i0 + ROWS)
        end = min(lanes, i1 + place - j0) if is_causal else lanes
        if end <= 0:
            continue
        weights, wanted = np.empty((i1 - i0, lanes), q.dtype), np.zeros((i1 - i0, lanes), q.dtype)
        _scores(q[i0:i1], keys, weights, mask, i0, j0, 0, end, scale, how)
        add_product(g[i0:i1], values, wanted, 0, len(values), 0, end)
        for i in range(i1 - i0):
            row, slopes, about, shift = weights[i, :end], wanted[i, :end], middle[i0 + i], lse[i0 + i]
            shift = INFINITY if shift == -INFINITY else shift
            if is_causal:
                row[max(0, i0 + i + place - j0 + 1) :] = -INFINITY
            if drops:
                _draw(lanes_of, words, stream, weight + (i0 + i) * step + j0, end)
                for j in range(end):
                    slopes[j] = slopes[j] / share if words[j] >= stream[3] else ZERO
            for j in range(end):
                row[j] = exp_of_shifted(row[j] - shift)
                slopes[j] = row[j] * (slopes[j] - about) * scale
            if drops:
                for j in range(end):
                    row[j] = row[j] / share if words[j] >= stream[3] else ZERO
        add_product(g[i0:i1].T, weights, dv, 0, i1 - i0, 0, end)
        add_product(q[i0:i1].T, wanted, dk, 0, i1 - i0, 0, end)
        add_product(wanted, k, dq[i0:i1], 0, end, 0, features)


@jit(parallel=True)
def _backward(  # type: ignore[no-untyped-def]
    g, q, k, v, mask, of_head, middle, lse, queries, all_keys, place, dq, dk, dv, scale, is_causal, how, drops, stream, share
):  # fmt: skip
    """dq has a sum for each part of the keys; a part takes its blocks in turn with the others."""
    heads, parts, shared = len(k), len(dq), len(q) // max(1, len(k))
    for task in prange(heads * parts):
        own, part = task // parts, task % parts
        first, seen = own * shared, all_keys[own * shared]
        for j0 in range(part * LANES, k.shape[1], parts * LANES):
            end = min(k.shape[1], j0 + LANES)
            j1 = min(seen, end)
            for j in range(max(j0, j1), end):
                dk[own, j, :] = ZERO
                dv[own, j, :] = ZERO
            if j1 <= j0:
                continue
            keys, values = _turned(k[own, j0:j1]), _turned(v[own, j0:j1])
            dk_block, dv_block = np.zeros_like(keys), np.zeros_like(values)
            for h in range(first, first + shared):
                n = queries[h]
                _go_back(g[h, :n], q[h, :n], k[own, j0:j1], keys, values, mask[of_head[h]], middle[h], lse[h], dq[part, h],
                         dk_block, dv_block, j0, place[h], scale, is_causal, how, drops, stream, share,
                         h * q.shape[1] * k.shape[1], k.shape[1])  # fmt: skip
            dk[own, j0:j1], dv[own, j0:j1] = dk_block.T, dv_block.T


def _heads(*arrays: Array) -> list[Array]:
    """[..., l, d] -> [heads, l, d], in rows that follow each other."""
    return [np.ascontiguousarray(a).reshape(prod(a.shape[:-2]), *a.shape[-2:]) for a in arrays]


def _rows(a: Array) -> Array:
    """[..., l] -> [heads, l], the same."""
    return np.ascontiguousarray(a).reshape(prod(a.shape[:-1]), a.shape[-1])


def _masks(mask: Array | None, q: Array) -> tuple[Array, Array, int]:
    """The mask's own matrices in q's format, which of them each head of q has, and how they are meant."""
    if mask is None:
        return np.empty((1, 0, 0), q.dtype), np.zeros(prod(q.shape[:-2]), np.int64), NO_MASK
    whole = mask.reshape((1,) * (q.ndim - mask.ndim) + mask.shape)
    numbers = np.arange(prod(whole.shape[:-2])).reshape(whole.shape[:-2])
    kind = q.dtype.type
    values = np.where(whole, kind(0), kind(-np.inf)) if mask.dtype == bool else whole.astype(q.dtype)
    how = ALLOWED if mask.dtype == bool else ADDED
    return _heads(values)[0], np.broadcast_to(numbers, q.shape[:-2]).reshape(-1).copy(), how


def _dropping(dropout: spec.Dropout | None, q: Array) -> tuple[Any, ...]:
    """Whether weights are dropped, the stream with the words below which they are, and the share of what is kept."""
    p, key, counter = spec.Dropout(0.0, 0, 0) if dropout is None else dropout
    stream = tuple(map(np.uint64, (counter & LOW64, counter >> 64, key, threshold(p))))
    return dropout is not None, stream, q.dtype.type(1 - p)


def _of_heads(
    op: str, q: Array, k: Array, query_lengths: Array | None, key_lengths: Array | None, lower_right: bool
) -> Any:
    """How many queries and keys each head of q has, and at which of its keys the first query stands."""
    found = []
    for lengths, a in zip(both_lengths(op, q, k, query_lengths, key_lengths), (q, k), strict=True):
        whole = np.full(q.shape[:-3], a.shape[-2]) if lengths is None else lengths
        found.append(np.repeat(whole.reshape(-1), prod(q.shape[-3:-2])))
    queries, keys = found
    return queries, keys, keys - queries if lower_right else np.zeros_like(keys)


@kernel(spec.attention, "cpu/numba-blocks", rank=40, formats=FORMATS, where=spec.unwindowed)
def attention(
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    query_lengths: Array | None = None,
    key_lengths: Array | None = None,
    *,
    is_causal: bool,
    scale: float,
    lower_right: bool = False,
    dropout: spec.Dropout | None = None,
) -> tuple[Array, Array]:
    y, lse = np.empty((*q.shape[:-1], v.shape[-1]), q.dtype), np.empty(q.shape[:-1], q.dtype)
    masks, of_head, how = _masks(mask, q)
    turned = np.ascontiguousarray(masks.swapaxes(1, 2))
    bounds = _of_heads("attention", q, k, query_lengths, key_lengths, lower_right)
    _forward(*_heads(q, k, v), turned, of_head, *bounds, *_heads(y), _rows(lse), q.dtype.type(scale), is_causal, how,
             *_dropping(dropout, q))  # fmt: skip
    return y, lse


@kernel(spec.attention_gradient, "cpu/numba-blocks", rank=40, formats=FORMATS, where=spec.unwindowed)
def attention_gradient(
    g: Array,
    q: Array,
    k: Array,
    v: Array,
    mask: Array | None,
    y: Array,
    lse: Array,
    query_lengths: Array | None = None,
    key_lengths: Array | None = None,
    *,
    is_causal: bool,
    scale: float,
    lower_right: bool = False,
    dropout: spec.Dropout | None = None,
) -> Any:
    parts = max(1, min(-(-PARTS // max(1, prod(k.shape[:-2]))), -(-k.shape[-2] // LANES)))
    dq, dk, dv = np.zeros((parts, *q.shape), q.dtype), np.empty(k.shape, q.dtype), np.empty(v.shape, q.dtype)
    masks, of_head, how = _masks(mask, q)
    bounds = _of_heads("attention_gradient", q, k, query_lengths, key_lengths, lower_right)
    middle, kept = _rows(np.einsum("...i,...i->...", g, y)), _rows(lse.astype(q.dtype))
    by_part = dq.reshape(parts, prod(q.shape[:-2]), *q.shape[-2:])
    _backward(*_heads(g, q, k, v), masks, of_head, middle, kept, *bounds, by_part, *_heads(dk, dv), q.dtype.type(scale),
              is_causal, how, *_dropping(dropout, q))  # fmt: skip
    return dq.sum(axis=0) if parts > 1 else dq[0], dk, dv


__all__ = ["attention", "attention_gradient"]
