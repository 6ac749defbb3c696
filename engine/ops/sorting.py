"""Sorting, searching and set functions of the array API standard (2024.12), and topk. NaN sorts last either way."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ulpgrad.autograd import is_grad_enabled
from ulpgrad.errors import ArgumentError, GradientError, ShapeError
from ulpgrad.formats import Array, int64
from ulpgrad.formats.promotion import promote
from ulpgrad.ops.common import as_tensor, normalize_axis, operands
from ulpgrad.ops.creation import astype
from ulpgrad.ops.indexing import along_axis
from ulpgrad.tensor import Tensor

__all__ = [
    "argsort",
    "searchsorted",
    "sort",
    "topk",
    "unique_all",
    "unique_counts",
    "unique_inverse",
    "unique_values",
]


def _keys(x: Tensor, descending: bool) -> Array:
    """Values that sort as x does; for falling order those that sort the other way round, NaN staying last."""
    values = x.dtype.decode(x.storage)
    return _turned(values) if descending else values


def _turned(values: Array) -> Array:
    """Exactly the opposite order, without overflow. Its own inverse."""
    return np.negative(values) if values.dtype.kind == "f" else np.invert(values)


def _order(x: Tensor, axis: int, descending: bool, stable: bool) -> Array:
    return np.argsort(_keys(x, descending), axis=axis, kind="stable" if stable else None).astype(np.int64, copy=False)


def _has_both_zeros(values: Array) -> bool:
    if values.dtype.kind != "f":
        return False
    negative = np.signbit(values[values == 0])
    return bool(negative.any() and not negative.all())


def sort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The values along an axis in rising (or falling) order. Differentiable."""
    x = as_tensor(x)
    where = normalize_axis("sort", axis, x.ndim)
    if x.requires_grad:
        return along_axis("sort", x, _order(x, where, descending, stable), where, True)
    keys = _keys(x, descending)
    kind: Any = "stable" if stable and _has_both_zeros(keys) else None  # no other equal values can be told apart
    keys = np.sort(keys, axis=where, kind=kind)
    return Tensor(x.dtype.encode(_turned(keys) if descending else keys), x.dtype)


def argsort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The positions (int64) that sort x along an axis; equal values keep their order if `stable`."""
    x = as_tensor(x)
    return Tensor(_order(x, normalize_axis("argsort", axis, x.ndim), descending, stable), int64)


def topk(x: Tensor, k: int, axis: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Tensor, Tensor]:
    """The k largest (or smallest) values along an axis and their positions (int64), the most extreme first.

    NaN counts as larger than any number. Without `sorted` the order is unspecified. Differentiable.
    """
    x = as_tensor(x)
    where = normalize_axis("topk", axis, x.ndim)
    if not 0 <= k <= x.shape[where]:
        raise ArgumentError(f"topk: k must be 0 to {x.shape[where]}, the size of axis {where}, got {k}")
    positions = _extremes(_keys(x, largest), k, where, largest, sorted)
    return along_axis("topk", x, positions, where, True), Tensor(positions, int64)


def _below_the_kth(keys: Array, k: int) -> Array | None:
    """Positions of the k smallest along the last axis, in rising order, by one comparison with the k-th; None where that
    does not tell k of them (equal values, NaN)."""
    mask = keys <= np.partition(keys, k - 1, axis=-1)[..., k - 1 : k]
    if not (np.count_nonzero(mask, axis=-1) == k).all():
        return None
    positions: Array = np.flatnonzero(mask).reshape(*keys.shape[:-1], k) % keys.shape[-1]
    return positions


def _extremes(keys: Array, k: int, axis: int, nan_first: bool, sorted: bool) -> Array:
    first = (slice(None),) * axis + (slice(k),)
    if nan_first and keys.dtype.kind == "f" and np.isnan(keys).any():
        return np.lexsort((keys, ~np.isnan(keys)), axis=axis)[first]
    if not 0 < k < keys.shape[axis]:
        return np.argsort(keys, axis=axis, kind="stable")[first]
    told = _below_the_kth(np.moveaxis(keys, axis, -1), k)
    if told is None:
        chosen = np.sort(np.argpartition(keys, k, axis=axis)[first], axis=axis)
    else:
        chosen = np.moveaxis(told, -1, axis)
    if sorted:  # equal values in the order of their positions
        order = np.argsort(np.take_along_axis(keys, chosen, axis), axis=axis, kind="stable")
        chosen = np.take_along_axis(chosen, order, axis)
    return chosen


def searchsorted(x1: Tensor, x2: Any, /, *, side: str = "left", sorter: Tensor | None = None) -> Tensor:
    """Positions (int64) at which the values of x2 would enter the rising 1-d x1 (or x1[sorter]) and keep it in order.

    `side`: "left" before equal values, "right" behind them.
    """
    if side not in ("left", "right"):
        raise ArgumentError(f"searchsorted: side must be 'left' or 'right', got {side!r}")
    a, b = operands("searchsorted", x1, x2)
    if a.ndim != 1:
        raise ShapeError(f"searchsorted: expected a 1-d tensor to search in, got shape {a.shape}")
    if sorter is not None and (sorter.dtype.kind != "integer" or sorter.shape != a.shape):
        raise ShapeError(f"searchsorted: sorter must be integers of shape {a.shape}, got {sorter.dtype} {sorter.shape}")
    form = promote(a.dtype, b.dtype)
    haystack, needles = (form.decode(astype(t.detach(), form, copy=False).storage) for t in (a, b))
    found = np.searchsorted(haystack, needles, side, None if sorter is None else sorter.storage)  # type: ignore[call-overload]
    return Tensor(np.asarray(found, np.int64), int64)


class UniqueAll(NamedTuple):
    """What `unique_all` returns."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """What `unique_counts` returns."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """What `unique_inverse` returns."""

    values: Tensor
    inverse_indices: Tensor


def _distinct(name: str, x: Any, **wanted: bool) -> Any:
    """NumPy's `unique` of the values of x, every NaN distinct."""
    x = as_tensor(x)
    if x.requires_grad and is_grad_enabled():
        raise GradientError(f"{name} has no gradient: pass x.detach()")
    unique: Any = np.unique  # typed by its flags, which are not known here
    return unique(x.dtype.decode(x.storage), equal_nan=False, **wanted)


def unique_all(x: Tensor, /) -> UniqueAll:
    """The distinct values in rising order, the first position of each in the flattened x, for every element of x the
    position of its value, and how often each occurs. Every NaN is distinct."""
    x = as_tensor(x)
    values, first, inverse, counts = _distinct(
        "unique_all", x, return_index=True, return_inverse=True, return_counts=True
    )
    integers = (Tensor(a.astype(np.int64, copy=False), int64) for a in (first, inverse.reshape(x.shape), counts))
    return UniqueAll(Tensor(x.dtype.encode(values), x.dtype), *integers)


def unique_counts(x: Tensor, /) -> UniqueCounts:
    """The distinct values in rising order and how often each occurs."""
    found = unique_all(x)
    return UniqueCounts(found.values, found.counts)


def unique_inverse(x: Tensor, /) -> UniqueInverse:
    """The distinct values in rising order and, for every element of x, the position of its value."""
    found = unique_all(x)
    return UniqueInverse(found.values, found.inverse_indices)


def unique_values(x: Tensor, /) -> Tensor:
    """The distinct values in rising order."""
    x = as_tensor(x)
    return Tensor(x.dtype.encode(_distinct("unique_values", x)), x.dtype)
