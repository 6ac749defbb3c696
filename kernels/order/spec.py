"""argsort, topk, searchsorted and unique. The order is that of a stable sort with NaN as the largest and equal zeros."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, AxisError, ShapeError
from ulpgrad.formats import ALL, Array, Format, int64
from ulpgrad.kernels.spec import Op, Sample


def _argsort(x: Array, *, axis: int, descending: bool) -> Array:
    values = x if x.dtype.kind == "f" else x.astype(object)  # so that the opposite of every integer exists
    return np.lexsort((-values if descending else values, np.isnan(x)), axis=axis)


def _check_argsort(x: Array, *, axis: int, descending: bool) -> None:
    if not 0 <= axis < x.ndim:
        raise AxisError(f"argsort: axis {axis} is outside a tensor of {x.ndim} dimensions")


def _argsort_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    special = np.array([[0.0, np.nan, -0.0, np.inf, 1, 1, -np.inf, np.nan, 1, -1, 0.0]])
    near = 1 + rng.integers(0, 3, 400) * 2.0**-50
    arrays = [rng.standard_normal((3, 500)) * 9, rng.integers(-3, 4, (2, 90, 3)), special, np.tile(special, 9),
              np.full((2, 70), 7.0), rng.permutation(np.geomspace(1e-9, 1e9, 2000)), np.append(near, [1e9, -1e9]),
              rng.integers(-(2**62), 2**62, (2, 300)), np.append(rng.integers(0, 9, 400), 2**62), np.zeros((2, 0)),
              np.zeros((0, 3)), np.ones(1), rng.standard_normal((40, 24)), rng.standard_normal((9, 25))]  # fmt: skip
    for x in arrays:
        for axis in sorted({0, x.ndim - 1}):
            for descending in (False, True):
                params = {"axis": axis, "descending": descending}
                yield Sample((x,), params, f"{x.dtype}{x.shape} {params}")


def _topk(x: Array, *, k: int, axis: int, largest: bool) -> Array:
    values = x if x.dtype.kind == "f" else x.astype(object)  # so that the opposite of every integer exists
    keys = (-values, ~np.isnan(x)) if largest else (values, np.isnan(x))
    return np.lexsort(keys, axis=axis).take(range(k), axis)


def _check_topk(x: Array, *, k: int, axis: int, largest: bool) -> None:
    if not 0 <= axis < x.ndim:
        raise AxisError(f"topk: axis {axis} is outside a tensor of {x.ndim} dimensions")
    if not 0 <= k <= x.shape[axis]:
        raise ArgumentError(f"topk: k must be 0 to {x.shape[axis]}, the size of axis {axis}, got {k}")


def _topk_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    special = np.array([[0.0, np.nan, -0.0, np.inf, 1, 1, -np.inf, np.nan, 1, -1, 0.0]])
    arrays = [rng.standard_normal((3, 500)) * 9, rng.integers(-3, 4, (2, 90, 3)), special, np.full((2, 70), 7.0),
              np.linspace(-9, 9, 300), np.zeros((2, 0)), np.zeros((0, 3)), np.ones(1)]  # fmt: skip
    for x in arrays:
        for axis in {0, x.ndim - 1}:
            n = x.shape[axis]
            for k in sorted({0, min(1, n), min(7, n), n // 2, n}):
                for largest in (True, False):
                    params = {"k": k, "axis": axis, "largest": largest}
                    yield Sample((x,), params, f"{x.shape} {params}")


def _check_searchsorted(sorted: Array, values: Array, *, side: str) -> None:
    if sorted.ndim != 1:
        raise ShapeError(f"searchsorted: expected a 1-d tensor to search in, got shape {tuple(sorted.shape)}")
    if side not in ("left", "right"):
        raise ArgumentError(f"searchsorted: side must be 'left' or 'right', got {side!r}")


def _searchsorted_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    special = np.array([-np.inf, -1.0, -0.0, 0.0, 0.0, 2.0, np.inf, np.inf, np.nan, np.nan])
    for sorted, values in (
        (special, rng.permutation(special)),
        (special[:7], special),
        (special[8:], special),
        (np.sort(rng.standard_normal(1000) * 9), rng.standard_normal((7, 5)) * 9),
        (np.sort(rng.integers(0, 18, 50)), rng.integers(0, 24, 33)),
        (np.arange(3.0), np.array(1.0)),
        (np.ones(1), np.arange(3.0)),
        (np.ones(0), np.arange(3.0)),
        (np.arange(3.0), np.ones((2, 0))),
    ):
        for side in ("left", "right"):
            yield Sample((sorted, values), {"side": side}, f"{values.shape} in {sorted.size}, {side}")


def distinct(x: Array) -> tuple[Array, ...]:
    """What `unique` gives, by NumPy."""
    values, first, inverse, counts = np.unique(
        x, return_index=True, return_inverse=True, return_counts=True, equal_nan=False
    )
    return values, first, inverse.reshape(x.shape), counts


def _unique_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    for x in (
        np.array([3.0, -0.0, 0.0, np.nan, np.inf, 3.0, -np.inf, np.nan, -1.0]),
        np.array([0.0, -0.0, 0.0]),
        rng.standard_normal((40, 30)),
        rng.integers(-5, 5, (3, 4, 5)),
        rng.integers(-(2**62), 2**62, 5000),
        np.array([-(2**63), 2**63 - 1, 0, -1, 2**63 - 1]),
        rng.integers(0, 40, 5000) * 3.0,
        np.ones((2, 0)),
        np.array(2.0),
        np.full(7, np.nan),
    ):
        yield Sample((x,), name=f"{x.dtype}{x.shape}")


def _positions(*_: Format, **__: Any) -> Format:
    return int64


argsort = Op(
    "argsort",
    signature="(x: [..., n, ...], *, axis, descending) -> int64[..., n, ...]",
    doc="Positions that sort the values along an axis, equal ones in order and NaN last.",
    reference=_argsort,
    check=_check_argsort,
    result=_positions,
    formats=ALL,
    samples=_argsort_samples,
)

topk = Op(
    "topk",
    signature="(x: [..., n, ...], *, k, axis, largest) -> int64[..., k, ...]",
    doc="Positions of the k largest (or smallest) values along an axis, the most extreme first, equal ones in order.",
    reference=_topk,
    check=_check_topk,
    result=_positions,
    formats=ALL,
    samples=_topk_samples,
)

searchsorted = Op(
    "searchsorted",
    signature="(sorted: [n], values: [...], *, side) -> int64[...]",
    doc="Positions at which values enter a rising array and keep it in order: before (left) or behind (right) equal ones.",
    reference=lambda sorted, values, *, side: np.searchsorted(sorted, values, side),
    check=_check_searchsorted,
    result=_positions,
    formats=ALL,
    samples=_searchsorted_samples,
)

unique = Op(
    "unique",
    signature="(x: [...]) -> (values: [m], first: int64[m], inverse: int64[...], counts: int64[m])",
    doc="The distinct values in rising order, the first flat position of each, the place of every element's value among "
    "them, and how often each occurs. Every NaN is distinct.",
    reference=distinct,
    result=lambda x: (x, int64, int64, int64),
    formats=ALL,
    samples=_unique_samples,
    ulps=dict.fromkeys(ALL, 0),
)
