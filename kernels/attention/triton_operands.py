"""What the rungs in Triton share: operands as (batch, heads, length, features) with their strides, masked scores and dropout."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from ulpgrad.formats import Format, as_format, bfloat16, bool_, float16, float32
from ulpgrad.kernels import gpu
from ulpgrad.kernels.attention.spec import INTEGERS, Dropout
from ulpgrad.kernels.random import spec as random_spec
from ulpgrad.kernels.random.philox import threshold
from ulpgrad.kernels.random.triton_philox import block, stream
from ulpgrad.kernels.triton_launch import tl, triton, typed

FORMATS = (float32, bfloat16, float16, bool_, *INTEGERS)
NO_MASK, BOOL_MASK, ADDED_MASK = 0, 1, 2
NO_DROPOUT, ALIGNED, UNALIGNED = 0, 1, 2  # whether rows of weights begin with a block of words


def format_of(a: Any) -> Format:
    """The format of a stored operand: 16 bits without a type of NumPy's are bfloat16 here."""
    return bfloat16 if a.dtype.name == "uint16" else as_format(a.dtype)


def given(a: Any) -> Any:
    """An operand as a kernel takes it."""
    return typed(a, format_of(a))


def four(a: Any) -> Any:
    """The array with the axes (batch, heads, length, features), the last one contiguous; copied only where it must be."""
    a = a.reshape(prod(a.shape[:-3]), *a.shape[-3:]) if a.ndim != 4 else a
    return a if a.strides[-1] == a.itemsize or a.shape[-1] < 2 else gpu.contiguous(a)


def stacked(a: Any) -> Any:
    """An operand with at least one axis in front of (length, features)."""
    return a if a.ndim > 2 else a[None]


def steps(a: Any) -> tuple[int, int, int]:
    """Elements from one batch, head and row to the next."""
    return tuple(s // a.itemsize for s in a.strides[:3])


class Mask(NamedTuple):
    """A mask of any kind: which, its memory, and elements from one batch, head, query and key to the next."""

    kind: int
    array: Any
    steps: tuple[int, ...]


def mask_of(mask: Any, q: Any, keys: int) -> Mask:
    """The mask broadcast to the scores of q and that many keys, without a copy unless there are more than two leading axes."""
    if mask is None:
        return Mask(NO_MASK, q, (0, 0, 0, 0))  # memory that is never read
    seen = stacked(gpu.xp().broadcast_to(mask, (*q.shape[:-1], keys)))
    seen = seen.reshape(prod(seen.shape[:-3]), *seen.shape[-3:]) if seen.ndim != 4 else seen
    apart = tuple(s // seen.itemsize for s in seen.strides)
    if mask.dtype == bool:
        return Mask(BOOL_MASK, seen.view("uint8"), apart)
    return Mask(ADDED_MASK, given(seen), apart)


def block_of(size: int) -> int:
    """The power of two that holds so many features; products want 16 at least."""
    return max(16, 1 << (size - 1).bit_length()) if size else 16


def precision(a: Any) -> str:
    """How products of float32 keep its accuracy on tensor cores: three of their short products for each. Others are exact."""
    return "tf32x3" if format_of(a) is float32 else "ieee"


def bits_of(value: float) -> int:
    """A float64 as the integer of its bits: a launch rounds numbers with a fraction to float32."""
    return int(np.float64(value).view(np.int64))


@triton.jit
def number(bits, TYPE: tl.constexpr):
    """The number of these bits, to be multiplied with blocks of that type."""
    return tl.full((1, 1), bits, tl.int64).to(tl.float64, bitcast=True).to(TYPE)


def reach(
    is_causal: bool, window: tuple[int, int] | None, length: int, keys: int
) -> tuple[tuple[int, int], dict[str, bool]]:
    """How many keys a query sees before and behind its own place, and the constants of kernels: with a window, `is_causal` is a
    bound on its right."""
    if window is None:
        return (0, 0), {"IS_CAUSAL": is_causal, "WINDOW": False}
    left, right = (length + keys if side < 0 else min(side, length + keys) for side in window)
    return (left, 0 if is_causal else right), {"IS_CAUSAL": False, "WINDOW": True}


def lengths_of(
    query_lengths: Any, key_lengths: Any, lower_right: bool, q: Any
) -> tuple[tuple[Any, Any], dict[str, int | bool]]:
    """Lengths as kernels take them, and the constants that say which of them there are."""
    arrays = tuple(
        q if n is None else gpu.contiguous(n) for n in (query_lengths, key_lengths)
    )  # q's memory is never read
    which = (query_lengths is not None) + 2 * (key_lengths is not None)
    return (arrays[0], arrays[1]), {"LENGTHS": which, "LOWER_RIGHT": lower_right}


@triton.jit
def there(query_lengths, key_lengths, batch, length, keys, LENGTHS: tl.constexpr, LOWER_RIGHT: tl.constexpr):
    """How many queries and keys a batch entry has, and at which of its keys the first query stands."""
    queries_there, keys_there, place = length, keys, 0
    if LENGTHS % 2 == 1:
        queries_there = tl.minimum(tl.maximum(tl.load(query_lengths + batch).to(tl.int32), 0), length)
    if LENGTHS >= 2:
        keys_there = tl.minimum(tl.maximum(tl.load(key_lengths + batch).to(tl.int32), 0), keys)
    if LOWER_RIGHT:
        place = keys_there - queries_there
    return queries_there, keys_there, place


@triton.jit
def keys_seen(
    first, keys, left, right, IS_CAUSAL: tl.constexpr, WINDOW: tl.constexpr, M: tl.constexpr, N: tl.constexpr
):
    """The blocks of N keys that some of M queries from the place `first` on see, from and to."""
    begin, end = 0, keys
    if IS_CAUSAL:
        end = tl.minimum(keys, first + M)
    if WINDOW:
        begin, end = tl.maximum(first - left, 0) // N * N, tl.minimum(keys, first + M + right)
    return begin, end


@triton.jit
def queries_that_see(
    first, length, left, right, IS_CAUSAL: tl.constexpr, WINDOW: tl.constexpr, M: tl.constexpr, N: tl.constexpr
):
    """The blocks of M queries of which some see one of N keys, the first of which lies `first` behind their first place, from
    and to."""
    begin, end = 0, length
    if IS_CAUSAL:
        begin = tl.maximum(first, 0) // M * M
    if WINDOW:
        begin, end = tl.maximum(first - right, 0) // M * M, tl.minimum(length, first + N + left)
    return begin, end


@triton.jit
def masked(s, mask, rows, columns, length, keys, left, right, place, row_step, column_step, IS_CAUSAL: tl.constexpr,
           WINDOW: tl.constexpr, MASK: tl.constexpr):  # fmt: skip
    """Scores of these queries and keys (both shaped to broadcast to them), minus infinity where one may not attend; the first
    query stands at `place` among the keys."""
    seen = (rows < length) & (columns < keys)
    at = rows.to(tl.int64) * row_step + columns.to(tl.int64) * column_step
    if MASK == 1:
        seen = seen & (tl.load(mask + at, mask=seen, other=0) != 0)
    if MASK == 2:
        s += tl.load(mask + at, mask=seen, other=0).to(s.dtype)
    if IS_CAUSAL:
        seen = seen & (rows + place >= columns)
    if WINDOW:
        seen = seen & (columns >= rows + place - left) & (columns <= rows + place + right)
    return tl.where(seen, s, -float("inf"))


def dropping(dropout: Dropout | None, keys: int) -> tuple[tuple[Any, ...], dict[str, int]]:
    """Dropout as arguments of a launch (what kept weights are multiplied by, the limit of words and the stream) and as the
    constant that says how words are drawn. Without dropout the arguments are ones, which a compiled kernel does not take."""
    if dropout is None:
        return (1,) * 8, {"DROPOUT": NO_DROPOUT}
    p, key, counter = dropout
    limit = threshold(p) << 1 | 1 << 40 | 1  # as in `stream`
    how = ALIGNED if keys % 4 == 0 else UNALIGNED
    return (random_spec.scale(p), limit, *stream(key, counter)), {"DROPOUT": how}


@triton.jit
def kept(
    rows, start, keys, limit, k0, k1, c0, c1, c2, c3, DROPOUT: tl.constexpr, N: tl.constexpr, TURNED: tl.constexpr
):
    """Which weights of N keys from `start` are kept, (rows, keys) or TURNED (keys, rows): the word of each, by its index in all
    weights, is not below the limit. `rows` (int64) are those of queries among all heads.

    Up to 32 bits of a row are put together, one group after the other, before they spread over a block of weights: all words of
    a block at once would take more registers than there are."""
    least = (tl.cast(limit, tl.int64) >> 1) & 0x1FFFFFFFF
    GROUP: tl.constexpr = min(N, 32)
    place, at = tl.arange(0, GROUP // 4 * DROPOUT)[None, :], tl.arange(0, N)
    at = at[:, None] if TURNED else at[None, :]
    seen = at * 0
    for group in tl.static_range(N // GROUP):
        first = rows * keys + (start + group * GROUP)
        w0, w1, w2, w3 = block((first >> 2)[:, None] + place, k0, k1, c0, c1, c2, c3)
        four = (_reaches(w0, least, DROPOUT) | _reaches(w1, least, DROPOUT) << 1 | _reaches(w2, least, DROPOUT) << 2
                | _reaches(w3, least, DROPOUT) << 3)  # fmt: skip
        bits = tl.sum(four << (4 * place), 1)  # no two have a bit in common
        if DROPOUT == 2:
            bits >>= first & 3
        bits = bits.to(tl.int32)
        bits = bits[None, :] if TURNED else bits[:, None]
        seen = tl.where(at // GROUP == group, bits >> (at % GROUP), seen)
    return (seen & 1) != 0


@triton.jit
def _reaches(word, least, DROPOUT: tl.constexpr):
    """1 for a word that is not below the limit, with room for the bits of a group."""
    return (word.to(tl.int64) >= least).to(tl.int64 if DROPOUT == 2 else tl.int32)


@triton.jit
def to_tf32(x):
    """float32 values to the 11 digits that units for TF32 read: these cut the rest off, which makes sums smaller."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(x == x, ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True), x)


@triton.jit
def weighted(weights, x, total, PRECISION: tl.constexpr):
    """total + weights @ x, with weights in x's format; but of float16, whose range small weights leave, in TF32: the same
    number of digits, and float32's range."""
    if x.dtype == tl.float16:
        total = tl.dot(to_tf32(weights), x.to(tl.float32), total, input_precision="tf32")
    else:
        total = tl.dot(weights.to(x.dtype), x, total, input_precision=PRECISION)
    return total


@triton.jit
def to_keys(
    to_key, to_value, weights, query, value, grad, own, rows, start, keys, factor, limit, k0, k1, c0, c1, c2, c3,
    DROPOUT: tl.constexpr, N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk and dv with what a block of weights (keys, queries) adds to them; dv without dropout's factor, dk without the scale.
    `own` is what the softmax takes from the gradient of each weight; `rows`, `start` and `keys` as in `kept`."""
    if DROPOUT != 0:
        seen = kept(rows, start, keys, limit, k0, k1, c0, c1, c2, c3, DROPOUT, N, True)
        to_value = weighted(tl.where(seen, weights, 0.0), grad, to_value, PRECISION)
        change = tl.dot(value, tl.trans(grad), input_precision=PRECISION)
        wanted = weights * (tl.where(seen, change * factor, 0.0) - own[None, :])
    else:
        to_value = weighted(weights, grad, to_value, PRECISION)
        wanted = weights * (tl.dot(value, tl.trans(grad), input_precision=PRECISION) - own[None, :])
    return weighted(wanted, query, to_key, PRECISION), to_value


@triton.jit
def to_queries(
    result, weights, key, value, grad, own, rows, start, keys, factor, limit, k0, k1, c0, c1, c2, c3, DROPOUT: tl.constexpr,
    N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq, without the scale, with what a block of weights (queries, keys) adds to it."""
    if DROPOUT != 0:
        seen = kept(rows, start, keys, limit, k0, k1, c0, c1, c2, c3, DROPOUT, N, False)
        change = tl.dot(grad, tl.trans(value), input_precision=PRECISION)
        wanted = weights * (tl.where(seen, change * factor, 0.0) - own[:, None])
    else:
        wanted = weights * (tl.dot(grad, tl.trans(value), input_precision=PRECISION) - own[:, None])
    return weighted(wanted, key, result, PRECISION)


__all__ = ["ADDED_MASK", "BOOL_MASK", "FORMATS", "NO_MASK", "Mask", "bits_of", "block_of", "dropping", "format_of",
           "four", "given", "kept", "keys_seen", "lengths_of", "mask_of", "masked", "number", "precision",
           "queries_that_see", "reach", "stacked", "steps", "there", "to_keys", "to_queries", "weighted"]  # fmt: skip
