"""take_along_axis and scatter_add: each is the gradient of the other. Negative indices count from the end of the axis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ulpgrad.errors import AxisError, FormatError, ShapeError
from ulpgrad.formats import ALL, REALS, Array, Format, float32, float64
from ulpgrad.kernels.registry import Request
from ulpgrad.kernels.spec import Op, Sample


def validate(name: str, indices: Array, size: int) -> None:
    """AxisError unless every index is on an axis of this size."""
    outside = (indices < -size) | (indices >= size)
    if outside.any():
        raise AxisError(f"{name}: index {int(indices[outside][0])} is out of bounds for an axis of size {size}")


def floats(request: Request) -> str | None:
    """Predicate of rungs that add floats only."""
    form = request.formats[0]
    return None if form is not None and form.kind == "float" else "adds floats only"


def _take_along_axis(x: Array, indices: Array, *, axis: int) -> Array:
    validate("take_along_axis", indices, x.shape[axis])
    return np.take_along_axis(x, indices.astype(np.int64), axis)


def _scatter_add(g: Array, indices: Array, *, axis: int, size: int) -> Array:
    validate("scatter_add", indices, size)
    out = np.zeros((*g.shape[:axis], size, *g.shape[axis + 1 :]), g.dtype)
    places = list(np.ogrid[tuple(map(slice, g.shape))])
    places[axis] = indices.astype(np.int64)
    np.add.at(out, tuple(places), g)
    return out


def _check_take(x: Array, indices: Array, *, axis: int) -> None:
    ours, theirs = x.shape, indices.shape
    if not 0 <= axis < len(ours):
        raise AxisError(f"take_along_axis: axis {axis} is outside a tensor of {x.ndim} dimensions")
    if len(ours) != len(theirs) or ours[:axis] != theirs[:axis] or ours[axis + 1 :] != theirs[axis + 1 :]:
        raise ShapeError(f"take_along_axis: shapes {tuple(ours)} and {tuple(theirs)} differ beside axis {axis}")


def _check_scatter(g: Array, indices: Array, *, axis: int, size: int) -> None:
    if not 0 <= axis < g.ndim:
        raise AxisError(f"scatter_add: axis {axis} is outside a tensor of {g.ndim} dimensions")
    if g.shape != indices.shape:
        raise ShapeError(f"scatter_add: g has shape {tuple(g.shape)}, its indices have {tuple(indices.shape)}")
    if size < 0:
        raise ShapeError(f"scatter_add: size must be at least 0, got {size}")


def _result(name: str) -> Callable[..., Format]:
    def result(values: Format, indices: Format, **_: Any) -> Format:
        if indices.kind != "integer":
            raise FormatError(f"{name}: indices are {indices.name}: expected integers")
        return values

    return result


def _indices() -> Iterator[tuple[tuple[int, ...], int, int, Array]]:
    """(shape of x, axis, size of the axis, indices)."""
    rng = np.random.default_rng(0)
    for shape, axis, count in (
        ((5,), 0, 3),
        ((3, 4), 1, 6),
        ((3, 4), 0, 1),
        ((2, 3, 4), 1, 5),
        ((1, 1), 1, 1),
        ((3, 4), 1, 0),
        ((0, 4), 1, 2),
        ((2, 0, 3), 1, 0),
        ((7, 33), 0, 400),
        ((33, 7), 1, 400),
    ):
        size = shape[axis]
        yield shape, axis, size, rng.integers(-size, max(size, 1), (*shape[:axis], count, *shape[axis + 1 :]))
    yield (4, 9), 1, 9, rng.integers(0, 9, (4, 5)).astype(np.uint8)
    yield (4, 9), 0, 4, rng.integers(-4, 4, (5, 9)).astype(np.int32)


def _take_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(1)
    for shape, axis, _, indices in _indices():
        yield Sample((rng.normal(0, 9, shape), indices), {"axis": axis}, f"{shape} {indices.dtype} axis {axis}")


def _scatter_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(1)
    for shape, axis, size, indices in _indices():
        g = np.asarray(rng.normal(0, 9, indices.shape))
        yield Sample((g, indices), {"axis": axis, "size": size}, f"{shape} {indices.dtype} axis {axis}")


take_along_axis = Op(
    "take_along_axis",
    signature="(x: [..., n, ...], indices: int[..., k, ...], *, axis) -> [..., k, ...]",
    doc="out[..., i, ...] = x[..., indices[..., i, ...], ...] along `axis`. An index outside raises AxisError.",
    reference=_take_along_axis,
    check=_check_take,
    result=_result("take_along_axis"),
    formats=ALL,
    promote=False,
    bytes=lambda x, indices, *, axis: 2.0 * indices.size * x.itemsize + indices.nbytes,
    samples=_take_samples,
    ulps=dict.fromkeys(ALL, 0),
)

scatter_add = Op(
    "scatter_add",
    signature="(g: [..., k, ...], indices: int[..., k, ...], *, axis, size) -> [..., size, ...]",
    doc="Sums of the values of g along `axis` by index, in the order of the axis; what is never named is zero.",
    reference=_scatter_add,
    check=_check_scatter,
    result=_result("scatter_add"),
    formats=REALS,
    promote=False,
    flops=lambda g, indices, *, axis, size: float(g.size),
    samples=_scatter_samples,
    ulps={float32: 128, float64: 128},  # of sum |g|, where one index comes 100 times and is added up one by one
    magnitude=lambda g, indices, *, axis, size: _scatter_add(np.abs(g), indices, axis=axis, size=size),
)
