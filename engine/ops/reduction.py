"""Reductions of the array API standard (2024.12), with their gradients.

`axis` is None (all), an integer or a tuple; 16-bit floats accumulate in float32 and are rounded once.
"""

from __future__ import annotations

import math
from typing import Any

from ulpgrad.device import elsewhere
from ulpgrad.differentiable import Primitive, apart
from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.formats import as_format, compute_format
from ulpgrad.kernels.reduction import spec
from ulpgrad.ops import accumulate as acc, elementwise as ew
from ulpgrad.ops.common import Axis, as_tensor, normalize_axes, normalize_axis
from ulpgrad.ops.creation import astype, ones
from ulpgrad.ops.manipulation import broadcast_to, concat, flip, permute_dims, reshape
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

__all__ = [
    "all",
    "any",
    "argmax",
    "argmin",
    "cumulative_prod",
    "cumulative_sum",
    "diff",
    "logsumexp",
    "max",
    "mean",
    "min",
    "prod",
    "std",
    "sum",
    "var",
]

Shape = tuple[int, ...]


def _spread(g: Tensor, shape: Shape, axis: Shape) -> Tensor:
    """A reduced tensor, as a view in the shape it was reduced from."""
    kept = tuple(1 if i in axis else s for i, s in enumerate(shape))
    return broadcast_to(reshape(g, kept), shape)


def _count(shape: Shape, axis: Shape) -> int:
    return math.prod(shape[a] for a in axis)


def _wide(x: Tensor) -> Tensor:
    """In the format that computes for x's: one over a large count is nothing a 16-bit float can hold."""
    return astype(x, compute_format(x.dtype), copy=False)


def _mean_gradient(g: Tensor, x_shape: Shape, axis: Shape) -> Tensor:
    scaled = _wide(g) * (1.0 / (_count(x_shape, axis) or 1))
    return _spread(astype(scaled, g.dtype, copy=False), x_shape, axis)


def _var_gradient(g: Tensor, x: Tensor, axis: Shape, correction: float) -> Tensor:
    divisor = _count(x.shape, axis) - correction
    wide = _wide(x)
    centred = wide - _mean(wide, axis=axis, keepdims=True)
    return _spread(_wide(g) * (2.0 / divisor if divisor > 0 else math.nan), x.shape, axis) * centred


def _extreme_gradient(g: Tensor, y: Tensor, x: Tensor, axis: Shape) -> Tensor:
    """The gradient shared equally among all that equal the extreme (a NaN equals a NaN here)."""
    best = _spread(y, x.shape, axis)
    hit = astype(ew.logical_or(x == best, ew.logical_and(ew.isnan(x), ew.isnan(best))), g.dtype)
    return _spread(g, x.shape, axis) * hit / _sum(hit, axis=axis, keepdims=True)


def _prod_gradient(g: Tensor, x: Tensor, axis: Shape) -> Tensor:
    """g times the product of all the other elements, which is right at zeros too and can be differentiated again."""
    if not x.size:
        return x
    order = (*(i for i in range(x.ndim) if i not in axis), *axis)
    moved = permute_dims(x, order)
    rows = reshape(moved, (-1, _count(x.shape, axis)))
    one = ones((rows.shape[0], 1), dtype=x.dtype, device=elsewhere(x.storage))
    before = concat([one, cumulative_prod(rows, axis=1)[:, :-1]], axis=1)
    after = flip(concat([one, cumulative_prod(flip(rows, axis=1), axis=1)[:, :-1]], axis=1), axis=1)
    others = permute_dims(reshape(before * after, moved.shape), tuple(sorted(range(x.ndim), key=order.__getitem__)))
    return _spread(g, x.shape, axis) * others


def _cumulative_sum_gradient(g: Tensor, axis: int) -> Tensor:
    return flip(_cumulative_sum(flip(g, axis=axis), axis=axis), axis=axis)


_sum: Primitive = Primitive(spec.sum, "x", gradients={"x": lambda g, x_shape, axis: _spread(g, x_shape, axis)})
_mean: Primitive = Primitive(spec.mean, "x", gradients={"x": _mean_gradient})
_var: Primitive = Primitive(spec.var, "x", gradients={"x": _var_gradient})
_prod: Primitive = Primitive(spec.prod, "x", gradients={"x": _prod_gradient})
_max: Primitive = Primitive(spec.max, "x", gradients={"x": _extreme_gradient})
_min: Primitive = Primitive(spec.min, "x", gradients={"x": _extreme_gradient})
_all: Primitive = Primitive(spec.all, "x")
_any: Primitive = Primitive(spec.any, "x")
_argmax: Primitive = Primitive(spec.argmax, "x")
_argmin: Primitive = Primitive(spec.argmin, "x")
_cumulative_sum: Primitive = Primitive(spec.cumulative_sum, "x", gradients={"x": _cumulative_sum_gradient})
_cumulative_prod: Primitive = Primitive(
    spec.cumulative_prod,
    "x",
    composite=lambda x, axis: _by_steps(x, axis),
)


def _by_steps(x: Tensor, axis: int) -> Tensor:
    """The running product, one factor at a time: the form whose gradient is right at zeros."""
    from ulpgrad.ops.indexing import take

    if x.shape[axis] == 0:
        return ew.positive(x)
    steps = [take(x, [0], axis=axis)]
    for i in range(1, x.shape[axis]):
        steps.append(steps[-1] * take(x, [i], axis=axis))
    return concat(steps, axis=axis)


@remembered
def sum(x: Any, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False, accumulate: Any = None) -> Tensor:
    """The sum over `axis`. Integers and bools sum in int64 (uint64 if unsigned) unless `dtype` is given.

    `accumulate`: for floats, the sum's own format: a float format, its name, or an `Accumulate`. Terms then come in order
    (C order of several axes), and every addition is rounded to that format.
    """
    x = as_tensor(x)
    if dtype is not None and as_format(dtype) is not x.dtype:
        x = astype(x, dtype)
    if accumulate is not None:
        return acc.total("sum", x, normalize_axes("sum", axis, x.ndim), keepdims, accumulate)
    out: Tensor = _sum(x, axis=normalize_axes("sum", axis, x.ndim), keepdims=keepdims)
    return out if dtype is None else astype(out, dtype, copy=False)


@remembered
def prod(x: Any, /, *, axis: Axis = None, dtype: Any = None, keepdims: bool = False) -> Tensor:
    """The product over `axis`. Integers and bools multiply in int64 (uint64 if unsigned) unless `dtype` is given."""
    x = as_tensor(x)
    if dtype is not None and as_format(dtype) is not x.dtype:
        x = astype(x, dtype)
    out: Tensor = _prod(x, axis=normalize_axes("prod", axis, x.ndim), keepdims=keepdims)
    return out if dtype is None else astype(out, dtype, copy=False)


@remembered
def mean(x: Any, /, *, axis: Axis = None, keepdims: bool = False, accumulate: Any = None) -> Tensor:
    """The mean over `axis`, of floats. `accumulate`: as in `sum`; the division is an ordinary one."""
    x = as_tensor(x)
    if accumulate is not None:
        axes = normalize_axes("mean", axis, x.ndim)
        total = acc.total("mean", _wide(x), axes, keepdims, accumulate)
        return astype(total / _count(x.shape, axes), x.dtype, copy=False)
    return _mean(x, axis=normalize_axes("mean", axis, x.ndim), keepdims=keepdims)


@remembered
def var(x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The mean squared distance from the mean; the divisor is the count less `correction` (1 for the unbiased estimate)."""
    x = as_tensor(x)
    axes = normalize_axes("var", axis, x.ndim)
    return _var(x, axis=axes, keepdims=keepdims, correction=float(correction))


@remembered
def std(x: Any, /, *, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
    """The square root of `var`."""
    x = as_tensor(x)
    axes = normalize_axes("std", axis, x.ndim)
    return ew.sqrt(var(x, axis=axes, correction=correction, keepdims=keepdims))


@remembered
def max(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest value over `axis`; NaN if there is one. The gradient is shared among equals."""
    x = as_tensor(x)
    return _max(x, axis=normalize_axes("max", axis, x.ndim), keepdims=keepdims)


@remembered
def min(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest value over `axis`; NaN if there is one. The gradient is shared among equals."""
    x = as_tensor(x)
    return _min(x, axis=normalize_axes("min", axis, x.ndim), keepdims=keepdims)


@remembered
def all(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether every value over `axis` is true (not zero)."""
    x = as_tensor(x)
    return _all(x, axis=normalize_axes("all", axis, x.ndim), keepdims=keepdims)


@remembered
def any(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether some value over `axis` is true (not zero)."""
    x = as_tensor(x)
    return _any(x, axis=normalize_axes("any", axis, x.ndim), keepdims=keepdims)


def _position(name: str, primitive: Primitive, x: Any, axis: int | None, keepdims: bool) -> Tensor:
    x = as_tensor(x)
    where = None if axis is None else normalize_axis(name, axis, x.ndim)
    return primitive(x, axis=where, keepdims=keepdims)


@remembered
def argmax(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The position (int64) of the first largest value, along `axis` or in the flattened tensor."""
    return _position("argmax", _argmax, x, axis, keepdims)


@remembered
def argmin(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The position (int64) of the first smallest value, along `axis` or in the flattened tensor."""
    return _position("argmin", _argmin, x, axis, keepdims)


def _cumulative(name: str, primitive: Any, x: Any, axis: int | None, dtype: Any, include_initial: bool) -> Tensor:
    x = as_tensor(x)
    if axis is None:
        if x.ndim != 1:
            raise ShapeError(f"{name}: axis must be given for a tensor of {x.ndim} dimensions")
        axis = 0
    where = normalize_axis(name, axis, x.ndim)
    if dtype is not None and as_format(dtype) is not x.dtype:
        x = astype(x, dtype)
    out: Tensor = primitive(x, axis=where)
    out = out if dtype is None else astype(out, dtype, copy=False)
    if not include_initial:
        return out
    shape = tuple(1 if i == where else s for i, s in enumerate(x.shape))
    first = ones(shape, dtype=out.dtype, device=elsewhere(out.storage))
    return concat([first if name == "cumulative_prod" else first - first, out], axis=where)


@remembered
def cumulative_sum(
    x: Any,
    /,
    *,
    axis: int | None = None,
    dtype: Any = None,
    include_initial: bool = False,
    accumulate: Any = None,
) -> Tensor:
    """Running sums along `axis` (needed unless x is 1-d), with a leading 0 if `include_initial`. `accumulate`: as in `sum`,
    without chunks."""

    def accumulated(x: Tensor, *, axis: int) -> Tensor:
        return acc.running("cumulative_sum", x, axis, accumulate)

    chosen = _cumulative_sum if accumulate is None else accumulated
    return _cumulative("cumulative_sum", chosen, x, axis, dtype, include_initial)


@remembered
def cumulative_prod(x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False) -> Tensor:
    """Running products along `axis` (needed unless x is 1-d), with a leading 1 if `include_initial`."""
    return _cumulative("cumulative_prod", _cumulative_prod, x, axis, dtype, include_initial)


@remembered
def diff(
    x: Any, /, *, axis: int = -1, n: int = 1, prepend: Tensor | None = None, append: Tensor | None = None
) -> Tensor:
    """Differences of neighbours along `axis`, taken n times, with values joined on before and behind first."""
    out: Tensor = as_tensor(x)
    where = normalize_axis("diff", axis, out.ndim)
    if n < 0:
        raise ArgumentError(f"diff: n must be at least 0, got {n}")
    parts = [part for part in (prepend, out, append) if part is not None]
    out = concat(parts, axis=where) if len(parts) > 1 else out
    lead = (slice(None),) * where
    for _ in range(n):
        out = out[(*lead, slice(1, None))] - out[(*lead, slice(None, -1))]
    return out


@remembered
def logsumexp(x: Any, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """log of the sum of exponentials over `axis`, without overflow."""
    x = as_tensor(x)
    if x.dtype.kind != "float":
        raise FormatError(f"logsumexp: expected a floating format, got {x.dtype.name}")
    axes = normalize_axes("logsumexp", axis, x.ndim)
    top = max(apart(x), axis=axes, keepdims=True)
    top = ew.where(ew.isfinite(top), top, 0.0)
    out = ew.log(sum(ew.exp(x - top), axis=axes, keepdims=True)) + top
    return out if keepdims else reshape(out, tuple(s for i, s in enumerate(x.shape) if i not in axes))
