"""Reductions over axes. Floating sums follow a fixed tree on every rung: the same bits for any number of threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, AxisError
from ulpgrad.formats import FLOATS, Array, Format, bool_, float32, float64, int64, uint64
from ulpgrad.kernels.registry import Request
from ulpgrad.kernels.spec import Op, Sample, first

Axes = tuple[int, ...]


def count(x: Array, axis: Axes) -> int:
    """How many values each result is made from."""
    return math.prod(x.shape[a] for a in axis)


def side_by_side(x: Array, *, axis: Axes, **_: Any) -> bool:
    """Whether no kept axis lies between reduced ones, so that x is [outer, n, inner] and n is what is reduced."""
    return x.ndim < 3 or _side_by_side(x.shape, axis)


@lru_cache(4096)
def _side_by_side(shape: tuple[int, ...], axis: Axes) -> bool:
    axes = sorted(a for a in axis if shape[a] != 1)
    return not axes or {a for a in range(axes[0], axes[-1]) if shape[a] != 1} <= set(axes)


def beside(request: Request) -> str | None:
    """Predicate of rungs that reduce axes that lie side by side."""
    flat = side_by_side(request.arrays[0], axis=request.params["axis"])
    return None if flat else "takes axes that lie side by side"


@lru_cache(4096)
def split(shape: tuple[int, ...], axis: Axes) -> tuple[int, int, int]:
    """The shape as (outer, n, inner) around reduced axes that lie side by side."""
    axes = sorted(a for a in axis if shape[a] != 1)
    if not axes:
        return 1, 1, math.prod(shape)
    low, high = axes[0], axes[-1] + 1
    return math.prod(shape[:low]), math.prod(shape[low:high]), math.prod(shape[high:])


@lru_cache(4096)
def result_shape(shape: tuple[int, ...], axis: Axes, keepdims: bool) -> tuple[int, ...]:
    """The result's shape."""
    if keepdims:
        return tuple(1 if i in axis else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in axis)


def index_layout(x: Array, *, axis: int | None, **_: Any) -> tuple[bool, bool]:
    """Whether an index is sought down columns, and whether it may exceed 32 bits."""
    if axis is None:
        return False, x.size >= 2**31
    return int(np.prod(x.shape[axis + 1 :])) != 1, x.shape[axis] >= 2**31


def index_fits(request: Request) -> str | None:
    """Predicate of rungs that count to 2^31."""
    return "counts to 2^31" if index_layout(request.arrays[0], axis=request.params["axis"])[1] else None


# What is right. NumPy's long double has 64 bits of precision on x86, so float64 sums have a better one to be held against.


def _wide(x: Array) -> Array:
    return x.astype(np.longdouble) if x.dtype.kind == "f" else x


def _narrow(y: Any) -> Array:
    y = np.asarray(y)
    return y.astype(np.float64) if y.dtype == np.longdouble else y


def sum_reference(x: Array, *, axis: Axes, keepdims: bool) -> Array:
    return _narrow(_wide(x).sum(axis=axis, keepdims=keepdims))


def prod_reference(x: Array, *, axis: Axes, keepdims: bool) -> Array:
    return _narrow(_wide(x).prod(axis=axis, keepdims=keepdims))


def mean_reference(x: Array, *, axis: Axes, keepdims: bool) -> Array:
    return _narrow(_wide(x).sum(axis=axis, keepdims=keepdims) / np.longdouble(count(x, axis)))


def var_reference(x: Array, *, axis: Axes, keepdims: bool, correction: float) -> Array:
    wide, n = _wide(x), np.longdouble(count(x, axis))
    squares = (wide - wide.sum(axis=axis, keepdims=True) / n) ** 2
    return _narrow(squares.sum(axis=axis, keepdims=keepdims) / np.maximum(n - correction, 0))


# Checks.


def _check_axes(name: str, x: Array, axis: Axes) -> None:
    if len(axis) == 1 and 0 <= axis[0] < x.ndim:  # by far the commonest
        return
    for a in axis:
        if not 0 <= a < x.ndim:
            raise AxisError(f"{name}: axis {a} is outside the {x.ndim} axes of shape {tuple(x.shape)}")
    if len(set(axis)) != len(axis):
        raise AxisError(f"{name}: axis {axis} names an axis twice")


def _check(name: str) -> Callable[..., None]:
    def check(x: Array, *, axis: Axes, **_: Any) -> None:
        _check_axes(name, x, axis)

    return check


def _check_not_empty(name: str) -> Callable[..., None]:
    def check(x: Array, *, axis: Axes | int | None, **_: Any) -> None:
        axes = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
        _check_axes(name, x, axes)
        for a in axes:
            if x.shape[a] == 0:
                raise ArgumentError(f"{name}: axis {a} of shape {tuple(x.shape)} is empty, and nothing has no {name}")

    return check


def _check_cumulative(name: str) -> Callable[..., None]:
    def check(x: Array, *, axis: int) -> None:
        _check_axes(name, x, (axis,))

    return check


# Result formats.


def total_format(x: Format, **_: Any) -> Format:
    """Sums of integers are counted in 64 bits."""
    if x.kind == "bool":
        return int64
    if x.kind == "integer":
        return int64 if getattr(x, "signed", True) else uint64
    return x


# Samples: axes first, last, middle, several, all and none.

SHAPES: tuple[tuple[tuple[int, ...], Axes], ...] = (
    ((), ()), ((1,), (0,)), ((7,), (0,)), ((3, 5), (0,)), ((3, 5), (1,)), ((3, 5), (0, 1)), ((3, 5), ()),
    ((2, 3, 4), (1,)), ((2, 3, 4), (0, 2)), ((2, 3, 4), (0, 1)), ((2, 3, 4), (1, 2)), ((4, 257), (1,)), ((300, 5), (0,)),
    ((300, 70), (0,)), ((1100,), (0,)), ((3, 0), (0,)), ((2, 1, 3), (1,)),
    ((30, 16), (0,)), ((23, 39), (0,)), ((2, 21, 64), (1,)), ((2, 1900), (1,)), ((70, 4), (1,)), ((40, 33), (1,)),
)  # fmt: skip
EMPTY: tuple[tuple[tuple[int, ...], Axes], ...] = (((0,), (0,)), ((3, 0), (1,)))


def _values(shapes: tuple[tuple[tuple[int, ...], Axes], ...]) -> Iterator[tuple[Array, Axes]]:
    rng = np.random.default_rng(0)
    for shape, axis in shapes:
        yield np.asarray(rng.standard_normal(shape) * 3), axis


def _edges() -> Iterator[tuple[Array, Axes]]:
    yield np.array([[1.0, np.nan, 2.0], [np.inf, 1.0, 2.0], [-np.inf, -0.0, 0.0], [np.inf, -np.inf, 1.0]]), (1,)
    yield np.array([[1.0, np.nan], [np.inf, 1.0], [-3.0, 3.0]]), (0,)


def _integers(shapes: tuple[tuple[tuple[int, ...], Axes], ...], top: int) -> Iterator[tuple[Array, Axes]]:
    rng = np.random.default_rng(2)
    for dtype in (np.bool_, np.int8, np.int64, np.uint8, np.uint64, np.int32):
        for shape, axis in (*shapes[3:9:2], *shapes[-2:]):
            yield rng.integers(0 if np.dtype(dtype).kind in "ub" else -top, top, shape).astype(dtype), axis


def _samples(*, empty: bool = True, integers: int = 0, edges: bool = True, small: bool = False, **more: Any) -> Any:
    def samples() -> Iterator[Sample]:
        shapes = tuple(s for s in SHAPES if not small or np.prod(s[0]) <= 300) + (EMPTY if empty else ())
        cases = [*_values(shapes), *(_edges() if edges else ()), *(_integers(SHAPES, integers) if integers else ())]
        for i, (x, axis) in enumerate(cases):
            yield Sample((x,), {"axis": axis, "keepdims": i % 2 == 1, **more}, name=f"{x.dtype} {x.shape} over {axis}")

    return samples


def _index_samples() -> Iterator[Sample]:
    one_axis = tuple((shape, axis) for shape, axis in SHAPES if len(axis) == 1)
    for i, (x, axis) in enumerate([*_values(one_axis), *_edges(), *_integers((*SHAPES[3:5] * 4, *SHAPES[-2:]), 3)]):
        yield Sample((x,), {"axis": axis[0], "keepdims": i % 2 == 1}, name=f"{x.dtype} {x.shape} over {axis[0]}")
    for x in (np.array(2.0), np.array([[1.0, 5.0], [5.0, 0.0]]), np.zeros((2, 3))):
        yield Sample((x,), {"axis": None, "keepdims": False}, name=f"{x.shape} flat")


def _running_samples() -> Iterator[Sample]:
    one_axis = tuple(s for s in SHAPES if len(s[1]) == 1 and np.prod(s[0]) <= 300) + EMPTY
    for x, axis in [*_values(one_axis), *_edges(), *_integers(SHAPES[3:5] * 4, 3)]:
        yield Sample(
            (x / 2 if x.dtype.kind == "f" else x,), {"axis": axis[0]}, name=f"{x.dtype} {x.shape} over {axis[0]}"
        )


# What errors are measured against.


def _sum_magnitude(x: Array, *, axis: Axes, keepdims: bool) -> Array:
    return sum_reference(np.abs(x), axis=axis, keepdims=keepdims)


def _mean_magnitude(x: Array, *, axis: Axes, keepdims: bool) -> Array:
    return mean_reference(np.abs(x), axis=axis, keepdims=keepdims)


def _var_magnitude(x: Array, *, axis: Axes, keepdims: bool, correction: float) -> Array:
    """The mean is off by a few units, whose squares are added to the variance of float32: parts in 2^20 of mean^2."""
    center = mean_reference(x, axis=axis, keepdims=keepdims)
    return var_reference(x, axis=axis, keepdims=keepdims, correction=correction) + center**2 * 2.0**-20


def _values_in(x: Array, **_: Any) -> float:
    return float(x.size)


SUM_ULPS: dict[Format, float] = {
    float32: 16,
    float64: 16,
}  # of sum |x|: blocks of up to 128 additions one after the other

sum = Op(
    "sum",
    signature="(x: [...], *, axis: (int, ...), keepdims) -> [...]",
    doc="Sum over axes; booleans and integers are counted in 64 bits. The sum of nothing is 0.",
    reference=sum_reference,
    check=_check("sum"),
    result=total_format,
    flops=_values_in,
    samples=_samples(integers=100),
    ulps=SUM_ULPS,
    magnitude=_sum_magnitude,
    key=side_by_side,
)

prod = Op(
    "prod",
    signature="(x: [...], *, axis: (int, ...), keepdims) -> [...]",
    doc="Product over axes; booleans and integers in 64 bits, wrapping. The product of nothing is 1.",
    reference=prod_reference,
    check=_check("prod"),
    result=total_format,
    flops=_values_in,
    samples=_samples(integers=5, small=True),
    ulps={float32: 32, float64: 32},
    key=side_by_side,
)

mean = Op(
    "mean",
    signature="(x: [...], *, axis: (int, ...), keepdims) -> [...]",
    doc="Mean over axes, for floats. The mean of nothing is NaN.",
    reference=mean_reference,
    check=_check("mean"),
    result=first,
    formats=FLOATS,
    flops=_values_in,
    samples=_samples(),
    ulps=SUM_ULPS,
    magnitude=_mean_magnitude,
    key=side_by_side,
)

var = Op(
    "var",
    signature="(x: [...], *, axis: (int, ...), keepdims, correction) -> [...]",
    doc="Mean squared distance from the mean, with n - correction for n; in two passes, so large means do no harm.",
    reference=var_reference,
    check=_check("var"),
    result=first,
    formats=FLOATS,
    flops=lambda x, **_: 4.0 * x.size,
    samples=_samples(correction=1.0),
    ulps=SUM_ULPS,
    magnitude=_var_magnitude,
    key=side_by_side,
)

max = Op(
    "max",
    signature="(x: [...], *, axis: (int, ...), keepdims) -> [...]",
    doc="Largest value; NaN if there is one. An empty axis has none and raises.",
    reference=lambda x, *, axis, keepdims: x.max(axis=axis, keepdims=keepdims),
    check=_check_not_empty("max"),
    result=first,
    flops=_values_in,
    samples=_samples(empty=False, integers=100),
    ulps=dict.fromkeys(FLOATS, 0),
    key=side_by_side,
)

min = Op(
    "min",
    signature="(x: [...], *, axis: (int, ...), keepdims) -> [...]",
    doc="Smallest value; NaN if there is one. An empty axis has none and raises.",
    reference=lambda x, *, axis, keepdims: x.min(axis=axis, keepdims=keepdims),
    check=_check_not_empty("min"),
    result=first,
    flops=_values_in,
    samples=_samples(empty=False, integers=100),
    ulps=dict.fromkeys(FLOATS, 0),
    key=side_by_side,
)

all = Op(
    "all",
    signature="(x: [...], *, axis: (int, ...), keepdims) -> bool[...]",
    doc="Whether every value is true, that is, not zero; true for nothing. NaN is not zero.",
    reference=lambda x, *, axis, keepdims: (x != 0).all(axis=axis, keepdims=keepdims),
    check=_check("all"),
    result=lambda x, **_: bool_,
    flops=_values_in,
    samples=_samples(integers=2),
    key=side_by_side,
)

any = Op(
    "any",
    signature="(x: [...], *, axis: (int, ...), keepdims) -> bool[...]",
    doc="Whether some value is true, that is, not zero; false for nothing. NaN is not zero.",
    reference=lambda x, *, axis, keepdims: (x != 0).any(axis=axis, keepdims=keepdims),
    check=_check("any"),
    result=lambda x, **_: bool_,
    flops=_values_in,
    samples=_samples(integers=2),
    key=side_by_side,
)

argmax = Op(
    "argmax",
    signature="(x: [...], *, axis: int or None, keepdims) -> int64[...]",
    doc="Index of the first largest value along an axis, or in the flattened array; of the first NaN if there is one.",
    reference=lambda x, *, axis, keepdims: x.argmax(axis=axis, keepdims=keepdims),
    check=_check_not_empty("argmax"),
    result=lambda x, **_: int64,
    flops=_values_in,
    samples=_index_samples,
    key=index_layout,
)

argmin = Op(
    "argmin",
    signature="(x: [...], *, axis: int or None, keepdims) -> int64[...]",
    doc="Index of the first smallest value along an axis, or in the flattened array; of the first NaN if there is one.",
    reference=lambda x, *, axis, keepdims: x.argmin(axis=axis, keepdims=keepdims),
    check=_check_not_empty("argmin"),
    result=lambda x, **_: int64,
    flops=_values_in,
    samples=_index_samples,
    key=index_layout,
)

cumulative_sum = Op(
    "cumulative_sum",
    signature="(x: [..., n, ...], *, axis: int) -> [..., n, ...]",
    doc="Running sum along an axis; booleans and integers in 64 bits.",
    reference=lambda x, *, axis: _narrow(_wide(x).cumsum(axis=axis)),
    check=_check_cumulative("cumulative_sum"),
    result=total_format,
    flops=lambda x, **_: x.size,
    samples=_running_samples,
    ulps={float32: 16, float64: 16},
    magnitude=lambda x, *, axis: np.abs(x).cumsum(axis=axis),
)

cumulative_prod = Op(
    "cumulative_prod",
    signature="(x: [..., n, ...], *, axis: int) -> [..., n, ...]",
    doc="Running product along an axis; booleans and integers in 64 bits, wrapping.",
    reference=lambda x, *, axis: _narrow(_wide(x).cumprod(axis=axis)),
    check=_check_cumulative("cumulative_prod"),
    result=total_format,
    flops=lambda x, **_: x.size,
    samples=_running_samples,
    ulps={float32: 32, float64: 32},
)
