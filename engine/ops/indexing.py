"""Picking elements by index, as NumPy does: integers and slices give views, integer arrays and masks give copies.

The gradient of picking is adding into zeros at the same index, and the gradient of that is picking again. Positions
named several times are summed in the order of the index, by the `embedding_gradient` ladder.
"""

from __future__ import annotations

import math
import operator
from types import EllipsisType, NoneType
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.autograd import is_grad_enabled
from ulpgrad.differentiable import moved
from ulpgrad.errors import ArgumentError, AxisError, FormatError, GradientError, ShapeError
from ulpgrad.formats import Array, bool_, float64, int64
from ulpgrad.kernels.embedding import spec as embedding_spec
from ulpgrad.ops.common import Axis, as_tensor, broadcast_shapes, normalize_axes, normalize_axis, scalar
from ulpgrad.ops.creation import asarray, astype
from ulpgrad.ops.reduction import sum as total
from ulpgrad.tensor import Tensor

__all__ = [
    "count_nonzero",
    "nonzero",
    "take",
    "take_along_axis",
]

Index = tuple[Any, ...]

BASIC = frozenset((int, slice, NoneType, EllipsisType))


def getitem(x: Tensor, index: Any, /) -> Tensor:
    """x[index]: a view for integers, slices, None and `...`; a copy where there are integer arrays or masks."""
    kind = index.__class__
    if kind is int or kind is slice or (kind is tuple and BASIC.issuperset(map(type, index))):
        return _picked("getitem", x, index, True)
    items = _prepared("getitem", index)
    basic = BASIC.issuperset(map(type, items))
    return _picked("getitem", x, items if basic or not x.requires_grad else _own(items), basic)


def _picked(name: str, x: Tensor, index: Any, basic: bool, distinct: bool = False) -> Tensor:
    """x.storage[index] with its way back. `distinct` promises that integer arrays name no position twice."""
    storage = _read(name, x, index)
    if storage.__class__ is not np.ndarray:  # a single element: as a view, not as a NumPy scalar
        storage = x.storage[(*index, ...) if isinstance(index, tuple) else (index, ...)]
    if x.requires_grad:
        shape = x.shape
        return moved(name, [x], storage, lambda g: _put_back(g, shape, index, basic or distinct), view=basic)
    out = Tensor(storage, x.dtype)
    if basic:
        out._cell = x._version_cell()
    return out


def _read(name: str, x: Tensor, index: Any) -> Any:
    try:
        return x.storage[index]
    except (IndexError, TypeError, ValueError) as error:
        raise _explained(name, x, error) from None


def _explained(name: str, x: Tensor, error: Exception) -> Exception:
    kinds = {IndexError: AxisError, TypeError: FormatError, ValueError: ArgumentError}
    return kinds[type(error)](f"{name}: {error} (the tensor has shape {x.shape})")


def _prepared(name: str, index: Any) -> Index:
    """The index as NumPy takes it. FormatError for what is neither integer nor bool."""
    items = index if isinstance(index, tuple) else (index,)
    return tuple(item if item.__class__ in BASIC else _index_array(name, item) for item in items)


def _index_array(name: str, item: Any) -> Any:
    """An integer, or an array of integers or bools, from whatever a user indexes with."""
    if isinstance(item, (Tensor, np.ndarray)):
        array = item.storage if isinstance(item, Tensor) else item
        found = item.dtype.name
        floating = isinstance(item, Tensor) and item.dtype.kind == "float"
    elif isinstance(item, (list, bool, np.bool_)):
        given = as_tensor(item)
        array, found = given.storage, given.dtype.name
        if array.size == 0:
            array = array.astype(np.int64)
        floating = given.dtype.kind == "float" and array.size > 0
    else:
        try:
            return operator.index(item)
        except TypeError:
            raise FormatError(
                f"{name}: cannot index with {type(item).__name__}; expected integers, slices, None, ..., or tensors of "
                "integers or bools"
            ) from None
    if floating or array.dtype.kind not in "biu":
        raise FormatError(f"{name}: an index must hold integers or bools, this one holds {found}; use .astype(int64)")
    return int(array) if array.ndim == 0 and array.dtype.kind != "b" else array


def _own(index: Index) -> Index:
    """The index in memory that nobody else writes to, for backward."""
    return tuple(item.copy() if isinstance(item, np.ndarray) else item for item in index)


# The way back


def _put_back(g: Tensor, shape: tuple[int, ...], index: Any, distinct: bool) -> Tensor:
    """Zeros of a shape with g added at the index."""
    items = index if isinstance(index, tuple) else (index,)
    if distinct or not any(isinstance(item, np.ndarray) and item.dtype.kind != "b" for item in items):
        storage = np.zeros(shape, g.storage.dtype)
        storage[index] = g.storage
    else:
        storage = _sums(g, shape, items)
    return moved("getitem_gradient", [g], storage, lambda h: _picked("getitem", h, index, False, distinct))


def _sums(g: Tensor, shape: tuple[int, ...], index: Index) -> Array:
    """As `_put_back`, for an index that may name a position several times."""
    axis = next(i for i, item in enumerate(index) if isinstance(item, np.ndarray))
    alone = all(item.__class__ is slice and item == slice(None) for i, item in enumerate(index) if i != axis)
    if alone and index[axis].dtype.kind != "b":
        return _sum_rows(g, shape, index[axis], axis)
    positions = np.arange(math.prod(shape)).reshape(shape)[index]
    return _sum_elements(g, shape, positions)


def _sum_elements(g: Tensor, shape: tuple[int, ...], positions: Array) -> Array:
    """Elements summed, in float64, into the (flattened) position each was picked from."""
    values = g.dtype.decode(g.storage).reshape(-1)
    totals = np.bincount(positions.reshape(-1), values, math.prod(shape))
    return g.dtype.encode(totals).reshape(shape)


def _sum_rows(g: Tensor, shape: tuple[int, ...], positions: Array, axis: int) -> Array:
    """Slices along an axis summed into the position each was picked from."""
    rows, rest = shape[axis], (*shape[:axis], *shape[axis + 1 :])
    whole = positions.astype(np.int64).reshape(-1)
    whole[whole < 0] += rows
    if math.prod(rest) == 1:
        return _sum_elements(g, shape, whole)
    front = np.moveaxis(g.storage, range(axis, axis + positions.ndim), range(positions.ndim))
    flat = np.ascontiguousarray(front).reshape(whole.size, math.prod(rest))
    summed, _ = dispatch.call(embedding_spec.embedding_gradient, (g.dtype, int64), (flat, whole), {"rows": rows})
    return np.moveaxis(np.asarray(summed).reshape(rows, *rest), 0, axis)


# Writing


def setitem(x: Tensor, index: Any, value: Any, /) -> None:
    """x[index] = value, in place; the value is converted to x's format and broadcast.

    Raises GradientError where a gradient would be lost: for a tensor that requires one (a leaf may be written inside
    `no_grad`) and for a value that requires one. Raises ArgumentError for a read-only view, as `broadcast_to` gives.
    """
    if x.requires_grad and (x._node is not None or is_grad_enabled()):
        advice = "write to x.detach()" if x._node is None else "build it with where or concat"
        raise GradientError(f"setitem: the tensor requires a gradient, which a write in place would break; {advice}")
    if not x.storage.flags.writeable:
        raise ArgumentError(f"setitem: the tensor of shape {x.shape} is a read-only view; write to copy(x)")
    given = _value(x, value)
    prepared = _prepared("setitem", index)
    try:
        x.storage[prepared] = given.storage
    except (IndexError, TypeError) as error:
        raise _explained("setitem", x, error) from None
    except ValueError:
        target = _read("setitem", x, prepared).shape  # raises where the index is at fault
        raise ShapeError(f"setitem: a value of shape {given.shape} does not fit x[index] of shape {target}") from None
    x._written()


def _value(x: Tensor, value: Any) -> Tensor:
    """What is written, in x's format."""
    if isinstance(value, float) and x.dtype.kind != "float":
        return astype(scalar(value, float64), x.dtype)
    if isinstance(value, (bool, int, float)):
        return scalar(value, x.dtype)
    if not isinstance(value, Tensor):
        return asarray(value, dtype=x.dtype)
    if value.requires_grad and is_grad_enabled():
        raise GradientError("setitem: the value requires a gradient, which a write in place would lose; detach it")
    return astype(value.detach(), x.dtype, copy=False)


# Functions


def take(x: Tensor, indices: Any, /, *, axis: int | None = None) -> Tensor:
    """The slices along `axis` (needed unless x is 1-d) at integer positions, negative ones counted from the end."""
    x = as_tensor(x)
    if axis is None:
        if x.ndim != 1:
            raise ShapeError(f"take: axis must be given for a tensor of {x.ndim} dimensions")
        axis = 0
    where = normalize_axis("take", axis, x.ndim)
    positions = _positions("take", indices)
    return _picked("take", x, (slice(None),) * where + (positions,), False)


def take_along_axis(x: Tensor, indices: Any, /, *, axis: int = -1) -> Tensor:
    """out[..., i, ...] = x[..., indices[..., i, ...], ...] along `axis`; the other axes broadcast."""
    x = as_tensor(x)
    return along_axis("take_along_axis", x, _positions("take_along_axis", indices), axis, False)


def along_axis(name: str, x: Tensor, positions: Array, axis: int, distinct: bool) -> Tensor:
    """`take_along_axis` under another name; `distinct` promises that no position is named twice."""
    where = normalize_axis(name, axis, x.ndim)
    if positions.ndim != x.ndim:
        raise ShapeError(f"{name}: {positions.ndim} dimensions of indices for a tensor of shape {x.shape}")
    rest = [(*s[:where], 1, *s[where + 1 :]) for s in (x.shape, positions.shape)]
    broadcast_shapes(name, *rest)
    grid = [np.arange(n).reshape(n, *(1,) * (x.ndim - i - 1)) for i, n in enumerate(x.shape)]
    return _picked(name, x, (*grid[:where], positions, *grid[where + 1 :]), False, distinct)


def _positions(name: str, indices: Any) -> Array:
    array = np.asarray(_index_array(name, indices))
    if array.dtype.kind == "b":
        raise FormatError(f"{name}: indices must be integers, got bool; use x[mask]")
    return array.copy() if isinstance(indices, (Tensor, np.ndarray)) else array


def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """The positions (int64) of all elements that are not zero, in row-major order: one tensor per axis."""
    x = as_tensor(x)
    if x.ndim == 0:
        raise ShapeError("nonzero: a 0-d tensor has no axes to give positions on")
    return tuple(Tensor(positions, int64) for positions in np.nonzero(x.dtype.decode(x.storage)))


def count_nonzero(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """How many elements over `axis` are not zero (int64)."""
    x = as_tensor(x)
    axes = normalize_axes("count_nonzero", axis, x.ndim)
    return total(Tensor(x.dtype.decode(x.storage) != 0, bool_), axis=axes, keepdims=keepdims)
