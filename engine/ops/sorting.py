"""Sorting, searching and set functions of the array API standard (2024.12), and topk. NaN sorts last either way."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ulpgrad.autograd import is_grad_enabled
from ulpgrad.device import beside
from ulpgrad.differentiable import Primitive, check_movable
from ulpgrad.errors import GradientError, ShapeError
from ulpgrad.formats import Array, as_format
from ulpgrad.kernels.copy import copied
from ulpgrad.kernels.order import spec
from ulpgrad.ops.common import as_tensor, normalize_axis, operands
from ulpgrad.ops.creation import astype, values_of
from ulpgrad.ops.indexing import along_axis, take
from ulpgrad.remembered import remembered
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


_argsort: Primitive = Primitive(spec.argsort, "x", "positions")
_topk: Primitive = Primitive(spec.topk, "x", "positions")
_searchsorted: Primitive = Primitive(spec.searchsorted, "sorted values", "positions")
_unique: Primitive = Primitive(spec.unique, "x", "values first inverse counts")


def _keys(x: Tensor, descending: bool) -> Array:
    """Values that sort as x does; for falling order those that sort the other way round, NaN staying last."""
    if x.dtype.routed:
        check_movable("sort", x.dtype, [x])
    values = x.storage if x.dtype.routed else values_of(x)  # codes of one scale are in their values' order
    return _turned(values) if descending else values


def _turned(values: Array) -> Array:
    """Exactly the opposite order, without overflow. Its own inverse."""
    return np.negative(values) if values.dtype.kind == "f" else np.invert(values)


def _order(name: str, x: Tensor, axis: int, descending: bool) -> Tensor:
    if x.dtype.routed:
        check_movable(name, x.dtype, [x])
        x = Tensor(x.storage, as_format(x.storage.dtype))  # codes of one scale are in their values' order
    return _argsort(x, axis=axis, descending=descending)


def _has_both_zeros(values: Array) -> bool:
    if values.dtype.kind != "f":
        return False
    if not isinstance(values, np.ndarray):  # a GPU sorts stably as fast, and is not waited for
        return True
    if np.count_nonzero(values) == values.size:
        return False
    negative = np.signbit(values[values == 0])
    return bool(negative.any() and not negative.all())


def sort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The values along an axis in rising (or falling) order. Differentiable."""
    x = as_tensor(x)
    where = normalize_axis("sort", axis, x.ndim)
    if x.requires_grad:
        return along_axis(x, _order("sort", x, where, descending), axis=where)
    with beside(x.storage):
        keys = copied(_keys(x, descending))
        kind: Any = "stable" if stable and _has_both_zeros(keys) else None  # no other equal values can be told apart
        keys.sort(axis=where, kind=kind)
        values = _turned(keys) if descending else keys
    if x.dtype.routed or x.dtype.is_native:
        return Tensor(values, x.dtype)
    return astype(Tensor(values, as_format(values.dtype)), x.dtype)


@remembered
def argsort(x: Tensor, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Tensor:
    """The positions (int64) that sort x along an axis; equal values keep their order, whether `stable` asks for it or not."""
    x = as_tensor(x)
    return _order("argsort", x, normalize_axis("argsort", axis, x.ndim), descending)


@remembered
def topk(x: Tensor, k: int, axis: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Tensor, Tensor]:
    """The k largest (or smallest) values along an axis and their positions (int64), the most extreme first.

    NaN counts as larger than any number; of equal values the first come first. `sorted=False` asks for less than that.
    Differentiable.
    """
    x = as_tensor(x)
    where = normalize_axis("topk", axis, x.ndim)
    positions = _topk(x, k=k, axis=where, largest=largest)
    return along_axis(x, positions, axis=where), positions


@remembered
def searchsorted(x1: Tensor, x2: Any, /, *, side: str = "left", sorter: Tensor | None = None) -> Tensor:
    """Positions (int64) at which the values of x2 would enter the rising 1-d x1 (or x1[sorter]) and keep it in order.

    `side`: "left" before equal values, "right" behind them.
    """
    a, b = operands("searchsorted", x1, x2)
    if sorter is not None:
        if sorter.dtype.kind != "integer" or sorter.shape != a.shape:
            raise ShapeError(
                f"searchsorted: sorter must be integers of shape {a.shape}, got {sorter.dtype} {sorter.shape}"
            )
        a = take(a.detach(), sorter, axis=0)
    return _searchsorted(a, b, side=side)


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


def _distinct(name: str, x: Any) -> UniqueAll:
    x = as_tensor(x)
    if x.requires_grad and is_grad_enabled():
        raise GradientError(f"{name} has no gradient: pass x.detach()")
    return UniqueAll(*_unique.every(x))


def unique_all(x: Tensor, /) -> UniqueAll:
    """The distinct values in rising order, the first position of each in the flattened x, for every element of x the
    position of its value, and how often each occurs. Every NaN is distinct."""
    return _distinct("unique_all", x)


def unique_counts(x: Tensor, /) -> UniqueCounts:
    """The distinct values in rising order and how often each occurs."""
    found = _distinct("unique_counts", x)
    return UniqueCounts(found.values, found.counts)


def unique_inverse(x: Tensor, /) -> UniqueInverse:
    """The distinct values in rising order and, for every element of x, the position of its value."""
    found = _distinct("unique_inverse", x)
    return UniqueInverse(found.values, found.inverse_indices)


def unique_values(x: Tensor, /) -> Tensor:
    """The distinct values in rising order."""
    return _distinct("unique_values", x).values
