"""CuPy's stable sort and binary search, over integers in the order of the values: NaN above all, zeros equal whatever their sign.

Next limit: topk sorts whole lines, of which it wants the first k.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import FORMATS
from ulpgrad.kernels import gpu
from ulpgrad.kernels.order import spec
from ulpgrad.kernels.registry import kernel

NATIVE = [form for form in FORMATS.values() if form.is_native]


def _keys(x: Any) -> Any:
    """Integers that sort as the values do."""
    xp = gpu.xp()
    if x.dtype.kind == "b":
        return x.astype(np.uint8)
    if x.dtype.kind != "f":
        return x
    signed = np.dtype(f"i{x.itemsize}")
    codes = xp.where(xp.isnan(x), x.dtype.type(np.nan), x + x.dtype.type(0)).view(signed)  # -0 + 0 is 0
    return xp.where(codes < 0, codes ^ np.iinfo(signed).max, codes)  # negative codes rise with the magnitude


@kernel(spec.argsort, "cuda/cupy-sort", rank=20, formats=NATIVE)
def argsort(x: Any, *, axis: int, descending: bool) -> Any:
    xp = gpu.xp()
    if x.size == 0:
        return xp.empty(x.shape, np.int64)
    keys = _keys(x) if not descending else _keys(-x) if x.dtype.kind == "f" else ~_keys(x)
    return xp.argsort(keys, axis=axis, kind="stable").astype(np.int64)


@kernel(spec.topk, "cuda/cupy-sort", rank=20, formats=NATIVE)
def topk(x: Any, *, k: int, axis: int, largest: bool) -> Any:
    xp = gpu.xp()
    if x.size == 0:
        return xp.empty((*x.shape[:axis], k, *x.shape[axis + 1 :]), np.int64)
    keys = _keys(x)
    order = xp.argsort(xp.moveaxis(~keys if largest else keys, axis, -1), axis=-1, kind="stable")[..., :k]
    return xp.ascontiguousarray(xp.moveaxis(order, -1, axis).astype(np.int64))


@kernel(spec.searchsorted, "cuda/cupy-search", rank=20, formats=NATIVE)
def searchsorted(sorted: Any, values: Any, *, side: Any) -> Any:
    xp = gpu.xp()
    if sorted.size == 0 or values.size == 0:
        return xp.zeros(values.shape, np.int64)
    return xp.searchsorted(_keys(sorted), _keys(values), side).astype(np.int64).reshape(values.shape)


@kernel(spec.unique, "cuda/cupy-sort", rank=20, formats=NATIVE)
def unique(x: Any) -> tuple[Any, ...]:
    """Waits for the device: how many values are distinct is the shape of the results."""
    xp, flat = gpu.xp(), x.reshape(-1)
    if x.size == 0:
        return flat.copy(), xp.empty(0, np.int64), xp.empty(x.shape, np.int64), xp.empty(0, np.int64)
    keys = _keys(flat)
    order = xp.argsort(keys, kind="stable").astype(np.int64)
    ranked = keys[order]
    is_new = xp.ones(x.size, np.bool_)
    is_new[1:] = ranked[1:] != ranked[:-1]
    if x.dtype.kind == "f":
        is_new |= xp.isnan(flat[order])
    starts = xp.flatnonzero(is_new).astype(np.int64)
    inverse = xp.empty(x.size, np.int64)
    inverse[order] = xp.cumsum(is_new.astype(np.int64)) - 1
    first = order[starts]
    counts = xp.concatenate([starts[1:], xp.full(1, x.size, np.int64)]) - starts
    return flat[first], first, inverse.reshape(x.shape), counts
