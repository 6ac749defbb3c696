"""Few queries, many keys, as where tokens are generated: the keys are shared out among programs, which a block of queries alone
would leave idle.

The rows of a tile are all queries of all heads that share a head of keys, so that keys and values are read once. Each program
keeps the largest score, the sum and the weighted values of its keys; a second kernel joins them in their order, so bits repeat.
How many keys a program takes hangs on nothing but the number of heads: a longer memory behind a length changes no bit. Next
limit: the bandwidth of memory, if enough programs run; few heads and few thousand keys give fewer than there are multiprocessors.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any, NamedTuple

from ulpgrad.kernels import gpu
from ulpgrad.kernels.attention import spec
from ulpgrad.kernels.attention.triton_fused import refusal as too_wide
from ulpgrad.kernels.attention.triton_operands import (
    FORMATS,
    block_of,
    four,
    given,
    lengths_of,
    mask_of,
    masked,
    precision,
    reach,
    stacked,
    steps,
    there,
)
from ulpgrad.kernels.attention.triton_tuned import LOG2_E
from ulpgrad.kernels.attention.visible import FEW_ROWS, KEYS_PER_ROW, Window, is_decoding, rows_that_share
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

SPLITS, COLUMNS = 16, 64  # of the kernel that joins: how many it adds at a time, of how many features


class Tile(NamedTuple):
    """Rows of queries at most and keys of a block, warps, and stages of the pipeline that loads them."""

    m: int
    n: int
    warps: int
    stages: int


# By architecture, bits of a value and the widest head (features, rounded up to a power of two), the first that holds it.
TILES = {
    (80, 16): {64: Tile(64, 64, 4, 4), 128: Tile(64, 64, 4, 3), 256: Tile(32, 32, 4, 2)},
    (80, 32): {64: Tile(32, 32, 4, 2), 128: Tile(16, 32, 8, 1), 256: Tile(16, 16, 8, 1)},
    (90, 16): {64: Tile(64, 128, 4, 3), 128: Tile(64, 64, 4, 4), 256: Tile(64, 64, 8, 2)},
    (90, 32): {64: Tile(32, 32, 4, 2), 128: Tile(16, 32, 8, 1), 256: Tile(16, 16, 8, 1)},
}
KEYS = {16: 256, 128: 512, 1 << 62: 1024}  # of a program, where there are up to so many heads of keys in all


def tile_for(q: Any, widest: int) -> Tile:
    """The row of the newest architecture that is not newer than the device's."""
    bits = 8 * q.dtype.itemsize
    newest = max((arch for arch, wide in TILES if wide == bits and arch <= gpu.generation()), default=80)
    rows = TILES[newest, bits]
    return rows[min(size for size in rows if size >= widest)]


def refusal(request: Request) -> str | None:
    """Heads that are too wide, queries that are too many."""
    q, k = request.arrays[:2]
    if is_decoding(q, k):
        return too_wide(request) or spec.undropped(request)
    rows = rows_that_share(q, k)
    return (
        f"takes few queries and many keys: up to {FEW_ROWS} rows of queries on a head of keys, and {KEYS_PER_ROW} keys for each; "
        f"here are {rows} on {k.shape[-2]} keys"
    )


@triton.jit
def attention_split(
    y, lse, part, tops, totals, q, k, v, mask, query_lengths, key_lengths, groups, share, length, keys, left, right, d, e,
    splits, blocks, q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, mask_batch, mask_head, mask_row,
    mask_column, scale,
    LENGTHS: tl.constexpr, LOWER_RIGHT: tl.constexpr, IS_CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASK: tl.constexpr,
    ALONE: tl.constexpr, KEYS: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, E: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """What one share of the keys gives a block of the queries of all heads that share them; ALONE, where there is no other, it
    is y."""
    block, split = tl.program_id(0) % blocks, tl.program_id(0) // blocks % splits
    which = (tl.program_id(0) // blocks // splits).to(tl.int64)
    batch, group = which // groups, which % groups
    queries_there, keys_there, place = there(query_lengths, key_lengths, batch, length, keys, LENGTHS, LOWER_RIGHT)
    r = block * M + tl.arange(0, M)
    used = r < share * length
    head = group * share + (r // length)[:, None]  # 64 bits wide, as group is
    row = tl.where(used, r % length, length)[:, None]  # behind the last where the tile has more rows than there are
    i, j = tl.arange(0, D)[None, :], tl.arange(0, E)[None, :]
    own = tl.load(q + batch * q_batch + head * q_head + row.to(tl.int64) * q_row + i, mask=(row < queries_there) & (i < d),
                  other=0)  # fmt: skip
    k += batch * k_batch + group * k_head
    v += batch * v_batch + group * v_head
    masks = mask + batch * mask_batch + head * mask_head
    begin = split * KEYS
    end = tl.minimum(begin + KEYS, keys_there)
    if IS_CAUSAL:
        end = tl.minimum(end, place + length)
    if WINDOW:
        begin = tl.maximum(begin, tl.maximum(place - left, 0) // N * N)
        end = tl.minimum(end, place + length + right)
    top = tl.full((M,), -float("inf"), tl.float32)
    total = tl.zeros((M,), tl.float32)
    result = tl.zeros((M, E), tl.float32)
    for start in range(begin, end, N):
        at = start + tl.arange(0, N)
        seen = (at < end)[:, None]
        key = tl.load(k + at.to(tl.int64)[:, None] * k_row + i, mask=seen & (i < d), other=0)
        value = tl.load(v + at.to(tl.int64)[:, None] * v_row + j, mask=seen & (j < e), other=0)
        s = tl.dot(own, tl.trans(key), input_precision=PRECISION)
        if MASK == 2:  # what is added takes the same factor as the scores
            s = masked(s * (scale * 0.6931471805599453), masks, row, at[None, :], queries_there, end, left, right, place,
                       mask_row, mask_column, IS_CAUSAL, WINDOW, MASK) * 1.4426950408889634  # fmt: skip
        else:
            s = masked(s * scale, masks, row, at[None, :], queries_there, end, left, right, place, mask_row, mask_column,
                       IS_CAUSAL, WINDOW, MASK)  # fmt: skip
        higher = tl.maximum(top, tl.max(s, 1))
        base = tl.where(higher == -float("inf"), 0, higher)
        weights = tl.exp2(s - base[:, None])
        shrink = tl.exp2(top - base)
        total = total * shrink + tl.sum(weights, 1)
        result = tl.dot(weights.to(value.dtype), value, result * shrink[:, None], input_precision=PRECISION)
        top = higher
    if ALONE:
        result /= tl.where(total == 0, 1, total)[:, None]
        out = which * (share * length) + r
        tl.store(lse + out, (top + tl.log2(total)) * 0.6931471805599453, mask=used)
        tl.store(y + out[:, None] * e + j, result.to(y.dtype.element_ty), mask=used[:, None] & (j < e))
    else:
        out = (which * splits + split) * (share * length) + r
        # Maxima pass NaN over: what met nothing else would seem to have met no keys.
        top = tl.where(total == total, top, total)
        tl.store(tops + out, top, mask=used)
        tl.store(totals + out, total, mask=used)
        if begin < end:  # what saw nothing is not read
            tl.store(part + out[:, None] * e + j, result, mask=used[:, None] & (j < e))


@triton.jit
def attention_join(y, lse, part, tops, totals, rows, e, splits, SPLITS: tl.constexpr, COLUMNS: tl.constexpr):
    """y and lse of a row from what the shares of the keys gave, added in their order."""
    blocks = tl.cdiv(e, COLUMNS)
    block, out = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    first = out // rows * splits * rows + out % rows
    j = block * COLUMNS + tl.arange(0, COLUMNS)
    top = tl.full((SPLITS,), -float("inf"), tl.float32)
    for start in range(0, splits, SPLITS):
        at = start + tl.arange(0, SPLITS)
        top = tl.maximum(top, tl.load(tops + first + at * rows, mask=at < splits, other=-float("inf")))
    largest = tl.max(top, 0)
    base = tl.where(largest == -float("inf"), 0, largest)
    total = tl.zeros((1,), tl.float32)
    result = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, splits, SPLITS):
        at = start + tl.arange(0, SPLITS)
        own = tl.load(tops + first + at * rows, mask=at < splits, other=-float("inf"))
        seen = own != -float("inf")
        weight = tl.exp2(own - base)
        total += tl.sum(weight * tl.load(totals + first + at * rows, mask=seen, other=0), 0)
        values = tl.load(
            part + (first + at * rows)[:, None] * e + j[None, :], mask=seen[:, None] & (j < e)[None, :], other=0
        )
        result += tl.sum(weight[:, None] * values, 0)
    result /= tl.where(total == 0, 1, total)
    one = tl.arange(0, 1)
    tl.store(lse + out + one, (base + tl.log2(total)) * 0.6931471805599453, mask=block + one == 0)
    tl.store(y + out * e + j, result.to(y.dtype.element_ty), mask=j < e)


@kernel(spec.attention, "cuda/triton-split", rank=70, formats=FORMATS, where=refusal)
def attention(
    q: Any, k: Any, v: Any, mask: Any, query_lengths: Any = None, key_lengths: Any = None, *, is_causal: bool, scale: float,
    window: Window = None, lower_right: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    xp, shape = gpu.xp(), q.shape[:-1]
    seen = mask_of(mask, q, k.shape[-2])
    q, k, v = (four(stacked(a)) for a in (q, k, v))
    (batch, heads, length, d), (groups, keys, e) = q.shape, v.shape[1:]
    y, lse = xp.empty((batch, heads, length, e), q.dtype), xp.empty((batch, heads, length), "float32")
    near, seeing = reach(is_causal, window, length, keys)
    lengths, known = lengths_of(query_lengths, key_lengths, lower_right, q)
    wide, tall = block_of(d), block_of(e)
    tile, many = tile_for(q, max(wide, tall)), batch * groups
    share = next(count for most, count in KEYS.items() if many <= most)
    splits, rows = cdiv(keys, share), heads // max(1, groups) * length
    m = min(tile.m, block_of(rows))
    blocks = cdiv(rows, m)
    part, tops, totals = (
        (xp.empty((many, splits, rows, *size), "float32") for size in ((e,), (), ())) if splits > 1 else (lse, lse, lse)
    )
    launch(
        attention_split, (many * splits * blocks,), given(y), lse, part, tops, totals, given(q), given(k), given(v),
        seen.array, *lengths, groups, heads // max(1, groups), length, keys, *near, d, e, splits, blocks,
        *steps(q), *steps(k), *steps(v), *seen.steps, float(scale) * LOG2_E, **known, **seeing, MASK=seen.kind,
        ALONE=splits == 1, KEYS=share, M=m, N=tile.n, D=wide, E=tall, PRECISION=precision(q), num_warps=tile.warps,
        num_stages=tile.stages,
    )  # fmt: skip
    if splits > 1:
        launch(
            attention_join, (many * rows * cdiv(e, COLUMNS),), given(y), lse, part, tops, totals, rows, e, splits,
            SPLITS=SPLITS, COLUMNS=COLUMNS, num_warps=2,
        )  # fmt: skip
    return y.reshape(*shape, e), lse.reshape(shape)


__all__ = ["KEYS", "TILES", "attention"]
