"""Which keys a query sees, by its place among them: lengths of padded batches, causal order and sliding windows."""

from __future__ import annotations

from collections import Counter
from math import prod
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import Array

Window = tuple[int, int] | None
FEW_ROWS = 64  # rows of queries, over all heads that share keys, that are few
KEYS_PER_ROW = 16  # keys that are many beside them, for each


def _counted(op: str, name: str, lengths: Array | None, most: int) -> Array | None:
    """Lengths as int64, one behind the other. ArgumentError for one below 0 or above `most`."""
    if lengths is None:
        return None
    if lengths.size and (lengths.min() < 0 or lengths.max() > most):
        bad = lengths[(lengths < 0) | (lengths > most)].flat[0]
        raise ArgumentError(f"{op}: {name} holds {bad}: expected 0 to {most}, the length of the operand's axis -2")
    return np.ascontiguousarray(lengths, np.int64)


def both_lengths(
    op: str, q: Array, k: Array, query_lengths: Array | None, key_lengths: Array | None
) -> tuple[Array | None, Array | None]:
    """Lengths of queries and of keys as int64, one behind the other. ArgumentError for one that the operand does not have."""
    return (
        _counted(op, "query_lengths", query_lengths, q.shape[-2]),
        _counted(op, "key_lengths", key_lengths, k.shape[-2]),
    )


def check_lengths(op: str, q: Array, **lengths: Array | None) -> None:
    """ShapeError where there is not one length for each batch entry: for what is in front of heads."""
    for name, given in lengths.items():
        if given is not None and tuple(given.shape) != tuple(q.shape[:-3]):
            raise ShapeError(
                f"{op}: {name} has shape {tuple(given.shape)}: expected {tuple(q.shape[:-3])}, one length for each "
                f"batch entry of q {tuple(q.shape)}, whose last axes are heads, length and features"
            )


def _spread(lengths: Array | None, all_of_them: int, ndim: int) -> Any:
    """Lengths beside scores [..., heads, l, s]."""
    return all_of_them if lengths is None else lengths.reshape(*lengths.shape, *[1] * min(3, ndim))


def only(a: Array, lengths: Array | None) -> Array:
    """[..., heads, length, features] with zeros behind the length of each batch entry: nothing there counts, NaN included."""
    if lengths is None:
        return a
    return np.where(np.arange(a.shape[-2])[:, None] < _spread(lengths, 0, a.ndim), a, a.dtype.type(0))


def visible(
    q: Array,
    k: Array,
    query_lengths: Array | None,
    key_lengths: Array | None,
    *,
    is_causal: bool,
    window: Window = None,
    lower_right: bool = False,
) -> Array | None:
    """Which keys each query sees, in a shape that broadcasts to the scores; None where it is all.

    Query i stands at place i among the keys, with `lower_right` at i + keys - queries, so that the last of both fall
    together. Causal, it sees keys up to its place; with a window (left, right) those from place - left to place + right, where
    -1 is no bound.
    """
    if query_lengths is None and key_lengths is None and not is_causal and window is None:
        return None
    length, keys = q.shape[-2], k.shape[-2]
    rows, columns = np.arange(length)[:, None], np.arange(keys)
    queries_there, keys_there = _spread(query_lengths, length, q.ndim), _spread(key_lengths, keys, q.ndim)
    out: Array = (rows < queries_there) & (columns < keys_there)
    place = rows + (keys_there - queries_there if lower_right else 0)
    if is_causal:
        out = out & (columns <= place)
    if window is not None:
        left, right = (length + keys if side < 0 else side for side in window)
        out = out & (columns >= place - left) & (columns <= place + right)
    return out


def local(length: int, keys: int, window: tuple[int, int]) -> Array:
    """Which keys each query sees through a window."""
    shape = np.broadcast_to(np.int8(0), (max(length, keys), 1))
    seen = visible(shape[:length], shape[:keys], None, None, is_causal=False, window=window)
    assert seen is not None
    return seen


def pairs(
    q: Array,
    k: Array,
    query_lengths: Array | None,
    key_lengths: Array | None,
    *,
    is_causal: bool,
    window: Window = None,
    lower_right: bool = False,
) -> float:
    """How many (query, key) pairs of all heads there are to compute."""
    length, keys = q.shape[-2], k.shape[-2]
    batch, heads = prod(q.shape[:-3]), prod(q.shape[-3:-2])
    left, right = (length + keys if side < 0 else side for side in window or (-1, -1))
    right = 0 if is_causal else right
    own = [length] * batch if query_lengths is None else query_lengths.reshape(-1).tolist()
    there = [keys] * batch if key_lengths is None else key_lengths.reshape(-1).tolist()
    total = 0.0
    for (rows, columns), count in Counter(zip(own, there, strict=True)).items():
        place = np.arange(rows) + (columns - rows if lower_right else 0)
        seen = np.minimum(place + right, columns - 1) - np.maximum(place - left, 0) + 1
        total += count * float(np.maximum(seen, 0).sum())
    return heads * total


def rows_that_share(q: Array, k: Array) -> int:
    """Rows of queries that attend to one head of keys: queries times the heads that share it."""
    shared = q.ndim > 2 and k.shape[-3] > 0
    return int(q.shape[-2] * (q.shape[-3] // k.shape[-3] if shared else 1))


def is_decoding(q: Array, k: Array) -> bool:
    """Whether few queries meet many keys, as where tokens are generated one by one."""
    rows = rows_that_share(q, k)
    return 0 < rows <= FEW_ROWS and k.shape[-2] >= KEYS_PER_ROW * rows


__all__ = ["FEW_ROWS", "KEYS_PER_ROW", "Window", "both_lengths", "check_lengths", "is_decoding", "local", "only", "pairs",
           "rows_that_share", "visible"]  # fmt: skip
