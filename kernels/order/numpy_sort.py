"""NumPy's partition, binary search and sort. Next limit: passes over memory, and a comparison for every step of a sort."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import FORMATS, Array
from ulpgrad.kernels.order import spec
from ulpgrad.kernels.registry import kernel

NATIVE = [form for form in FORMATS.values() if form.is_native]


def _below_the_kth(keys: Array, k: int) -> Array | None:
    """Positions of the k smallest along the last axis, in rising order, by one comparison with the k-th; None where that
    does not tell k of them (equal values, NaN)."""
    mask = keys <= np.partition(keys, k - 1, axis=-1)[..., k - 1 : k]
    if not (np.count_nonzero(mask, axis=-1) == k).all():
        return None
    positions: Array = np.flatnonzero(mask).reshape(*keys.shape[:-1], k) % keys.shape[-1]
    return positions


@kernel(spec.argsort, "cpu/numpy-sort", rank=10, formats=NATIVE)
def argsort(x: Array, *, axis: int, descending: bool) -> Array:
    keys = x if not descending else np.negative(x) if x.dtype.kind == "f" else np.invert(x)
    return np.argsort(keys, axis=axis, kind="stable").astype(np.int64, copy=False)


@kernel(spec.topk, "cpu/numpy-partition", rank=10, formats=NATIVE)
def topk(x: Array, *, k: int, axis: int, largest: bool) -> Array:
    floats = x.dtype.kind == "f"
    keys = np.moveaxis(x if not largest else np.negative(x) if floats else np.invert(x), axis, -1)
    if largest and floats and np.isnan(keys).any():
        chosen = np.lexsort((keys, ~np.isnan(keys)), axis=-1)[..., :k]
    elif k in (0, keys.shape[-1]) or (told := _below_the_kth(keys, k)) is None:
        chosen = np.argsort(keys, axis=-1, kind="stable")[..., :k]
    else:
        order = np.argsort(np.take_along_axis(keys, told, -1), axis=-1, kind="stable")
        chosen = np.take_along_axis(told, order, -1)
    return np.moveaxis(chosen, -1, axis).astype(np.int64, copy=False)


@kernel(spec.searchsorted, "cpu/numpy-search", rank=10, formats=NATIVE)
def searchsorted(sorted: Array, values: Array, *, side: Any) -> Array:
    return np.asarray(np.searchsorted(sorted, values, side), np.int64)


@kernel(spec.unique, "cpu/numpy-sort", rank=10, formats=NATIVE)
def unique(x: Array) -> tuple[Array, ...]:
    return spec.distinct(x)
