"""Picking elements by index, as NumPy does: integers and slices give views, integer arrays and masks give copies.

The gradient of picking is adding into zeros at the same index, and the gradient of that is picking again. Positions
named several times are summed in the order of the index, by the `embedding_gradient` and `scatter_add` ladders.
"""

from __future__ import annotations

import math
import operator
from types import EllipsisType, NoneType
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.autograd import Placed, is_grad_enabled
from ulpgrad.device import as_array, beside, device_of, module_of, moved_to, retried
from ulpgrad.differentiable import Primitive, check_movable, moved, plain_calls, viewed
from ulpgrad.errors import ArgumentError, AxisError, DeviceError, FormatError, GradientError, ShapeError
from ulpgrad.formats import Array, Format, as_format, bool_, float32, float64, int64
from ulpgrad.kernels import deferred, gpu
from ulpgrad.kernels.copy import copied
from ulpgrad.kernels.embedding import spec as embedding_spec
from ulpgrad.kernels.gather import spec as gather_spec
from ulpgrad.ops.common import Axis, as_tensor, broadcast_shapes, normalize_axes, normalize_axis, scalar
from ulpgrad.ops.creation import asarray, astype, copy, values_of, writeable
from ulpgrad.ops.elementwise import not_equal
from ulpgrad.ops.manipulation import broadcast_to
from ulpgrad.ops.reduction import sum as total
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

__all__ = [
    "count_nonzero",
    "nonzero",
    "take",
    "take_along_axis",
]

Index = tuple[Any, ...]

BASIC = frozenset((int, slice, NoneType, EllipsisType))
ACCUMULATED = (float32, float64)  # formats whose sums NumPy writes in place


@remembered
def getitem(x: Tensor, index: Any, /) -> Tensor:
    """x[index]: a view for integers, slices, None and `...`; a copy where there are integer arrays or masks."""
    kind = index.__class__
    if kind in BASIC or (kind is tuple and BASIC.issuperset(map(type, index))):
        return _picked("getitem", x, index, True)
    if kind is Tensor and (found := _at_positions(x, index)) is not None:
        return found
    plain_calls.varies()
    items = _prepared("getitem", index, x)
    basic = BASIC.issuperset(map(type, items))
    return _picked("getitem", x, items if basic or not x.requires_grad else _own(items), basic)


def _at_positions(x: Tensor, positions: Tensor) -> Tensor | None:
    """x[positions] for int64 positions on the host, in steps that can be remembered. None where `_picked` is needed: for other
    indices, for gradients of more than lines, and to say which position is outside."""
    values, at = x.storage, positions.storage
    if (
        positions.dtype is not int64
        or not (values.__class__ is at.__class__ is np.ndarray)
        or x.dtype.routed
        or x.ndim == 0
    ):
        return None
    try:
        if not x.requires_grad:
            return moved("getitem", [x, positions], lambda a, i: _taken(a, (i,)), None)
        if x.ndim == at.ndim == 1 and x.dtype.is_native:
            return along_axis(x, copy(positions), axis=0)
    except (AxisError, IndexError):
        pass
    return None


def _picked(name: str, x: Tensor, index: Any, basic: bool) -> Tensor:
    """x.storage[index] with its way back."""
    storage = _read(name, x, index)
    if storage.__class__ is not np.ndarray and isinstance(
        storage, np.generic
    ):  # a single element: as a view, not as a NumPy scalar
        storage = x.storage[(*index, ...) if isinstance(index, tuple) else (index, ...)]
    if not (basic or x.requires_grad or x.dtype.routed):
        return Tensor(storage, x.dtype)
    shape = x.shape
    put_back = _placed if basic and x.dtype in ACCUMULATED else _put_back

    def back(g: Tensor) -> Any:
        return put_back(g, shape, index)

    if basic:
        return viewed(name, x, storage, back)
    return moved(name, [x], lambda a: a[index], back, storage=storage)


def _read(name: str, x: Tensor, index: Any) -> Any:
    try:
        if x.storage.__class__ is np.ndarray:
            return _taken(x.storage, index)
        if x.dtype.kind == "block":
            return x.storage[index]
        return retried(x.device.index, operator.getitem, x.storage, index)
    except (IndexError, TypeError, ValueError) as error:
        raise _explained(name, x, error) from None


def _taken(storage: Array, index: Any) -> Array:
    """storage[index]; positions on one axis by `take`, which NumPy begins in a third of the time."""
    positions = index[-1] if index.__class__ is tuple and index else None
    if (
        positions.__class__ is np.ndarray
        and positions.dtype == np.int64
        and storage.flags.c_contiguous
        and all(item.__class__ is slice and item == slice(None) for item in index[:-1])
    ):
        return storage.take(positions, len(index) - 1)
    picked: Array = storage[index]
    return picked


def _explained(name: str, x: Tensor, error: Exception) -> Exception:
    kinds = {IndexError: AxisError, TypeError: FormatError, ValueError: ArgumentError}
    if isinstance(error, FormatError):
        return error
    return kinds[type(error)](f"{name}: {error} (the tensor has shape {x.shape})")


def _prepared(name: str, index: Any, x: Tensor) -> Index:
    """The index as x's storage takes it. FormatError for what is neither integer nor bool."""
    items = index if isinstance(index, tuple) else (index,)
    found = tuple(item if item.__class__ in BASIC else _index_array(name, item, x) for item in items)
    if x.storage.__class__ is not np.ndarray:
        return _checked_on_gpu(name, found, x)
    return found


def _checked_on_gpu(name: str, index: Index, x: Tensor) -> Index:
    """The index with its arrays where x lies. A GPU wraps positions that are outside around without a word, so that they are
    looked at here: those of the host before they are moved, others at the cost of waiting for them."""
    if x.device.type == "cpu":  # blocks, which refuse an index themselves
        return index
    axis, checked = 0, []
    taken = sum(_axes_taken(item) for item in index)
    for item in index:
        if item is Ellipsis:
            axis += x.ndim - taken
        elif isinstance(item, (int, slice)) or item is None:
            axis += item is not None
        else:
            if item.dtype.kind != "b" and axis < x.ndim:
                _check_positions(name, item, axis, x)
            axis += _axes_taken(item)
            item = _beside("an index", item, x)
        checked.append(item)
    return tuple(checked)


def _axes_taken(item: Any) -> int:
    """How many axes of the tensor an item of an index stands for."""
    if item is None or item is Ellipsis:
        return 0
    return int(item.ndim) if hasattr(item, "ndim") and item.dtype.kind == "b" else 1


def _check_positions(name: str, positions: Any, axis: int, x: Tensor) -> None:
    shape = x.shape
    size = shape[axis]
    with beside(positions):
        outside = ((positions < -size) | (positions >= size)).any()
        if positions.__class__ is not np.ndarray and name != "setitem":  # what is written cannot be taken back later
            deferred.ask(name, outside, lambda: _refuse(name, gpu.to_host(positions), axis, shape))
        elif bool(outside):
            _refuse(name, gpu.to_host(positions), axis, shape)


def _refuse(name: str, positions: Array, axis: int, shape: tuple[int, ...]) -> None:
    """AxisError for the first position that is nowhere."""
    size = shape[axis]
    outside = (positions < -size) | (positions >= size)
    if outside.any():
        raise AxisError(
            f"{name}: index {int(positions[outside][0])} is out of bounds for axis {axis} with size {size} "
            f"(the tensor has shape {shape})"
        )


def _beside(what: str, array: Any, x: Tensor) -> Any:
    """An array of the host moved to where x lies; what lies on another GPU is refused."""
    if isinstance(array, np.ndarray) or device_of(array) == x.device:
        return moved_to(array, x.device)
    raise DeviceError(f"{what} lies on {device_of(array)}, the tensor on {x.device}: move one with .to(device)")


def _index_array(name: str, item: Any, x: Tensor) -> Any:
    """An integer, or an array of integers or bools, from whatever a user indexes with."""
    if isinstance(item, (Tensor, np.ndarray)) or gpu.is_array(item):
        array = item.storage if isinstance(item, Tensor) else item
        found = item.dtype.name
        floating = isinstance(item, Tensor) and item.dtype.kind == "float"
        if array.__class__ is not np.ndarray and x.storage.__class__ is np.ndarray:
            _beside("an index", array, x)  # which raises
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
    return int(gpu.to_host(array)) if array.ndim == 0 and array.dtype.kind != "b" else array


def _own(index: Index) -> Index:
    """The index in memory that nobody else writes to, for backward."""
    return tuple(copied(item) if hasattr(item, "dtype") else item for item in index)


# The way back


def _placed(g: Tensor, shape: tuple[int, ...], index: Any) -> Any:
    """g at an index that names no position twice, to be added into the other gradients of the tensor."""
    return _put_back(g, shape, index) if is_grad_enabled() else Placed(g, shape, index)


def _put_back(g: Tensor, shape: tuple[int, ...], index: Any) -> Tensor:
    """Zeros of a shape with g added at the index."""
    items = index if isinstance(index, tuple) else (index,)
    several = any(hasattr(item, "dtype") and item.dtype.kind != "b" for item in items)
    form = g.dtype

    def run(values: Array) -> Array:
        if several:
            return _sums(values, form, shape, items)
        storage: Array = module_of(values).zeros(shape, values.dtype)
        storage[index] = values
        return storage

    return moved("getitem_gradient", [g], run, lambda h: _picked("getitem", h, index, False))


def _sums(values: Array, form: Format, shape: tuple[int, ...], index: Index) -> Array:
    """As `_put_back`, for an index that may name a position several times."""
    axes = [axis for axis, item in enumerate(index) if item.__class__ is not slice or item != slice(None)]
    first, end = axes[0], axes[-1] + 1
    if end - first == len(axes) and all(map(_is_integer, index[first:end])):
        return _sum_slices(values, form, shape, index[first:end], first)
    positions = module_of(values).arange(math.prod(shape)).reshape(shape)[index]
    return _sum_rows(values.reshape(-1, 1), form, positions, math.prod(shape)).reshape(shape)


def _is_integer(item: Any) -> bool:
    return item.__class__ is int or (hasattr(item, "dtype") and item.dtype.kind != "b")


def _sum_slices(values: Array, form: Format, shape: tuple[int, ...], index: Index, axis: int) -> Array:
    """Slices picked by integers on successive axes, from `axis` on, summed into the position each was picked from."""
    sizes, rest = shape[axis : axis + len(index)], (*shape[:axis], *shape[axis + len(index) :])
    xp = module_of(values)
    positions = xp.zeros((), np.int64)
    for item, size in zip(index, sizes, strict=True):
        whole = xp.asarray(item).astype(np.int64)
        positions = positions * size + xp.where(whole < 0, whole + size, whole)
    front = np.moveaxis(values, tuple(range(axis, axis + positions.ndim)), tuple(range(positions.ndim)))
    summed = _sum_rows(front.reshape(positions.size, math.prod(rest)), form, positions, math.prod(sizes))
    if axis == 0:
        return summed.reshape(shape)
    return np.moveaxis(summed.reshape(*sizes, *rest), tuple(range(len(sizes))), tuple(range(axis, axis + len(sizes))))


def _sum_rows(values: Array, form: Format, positions: Array, rows: int) -> Array:
    """Rows of values, in a format, summed by position."""
    summed, _ = dispatch.call(
        embedding_spec.embedding_gradient, (form, int64), (values, positions.reshape(-1)), {"rows": rows}
    )
    out: Array = as_array(summed)
    return out


# Writing


def setitem(x: Tensor, index: Any, value: Any, /) -> None:
    """x[index] = value, in place; the value is converted to x's format and broadcast.

    Raises GradientError where a gradient would be lost: for a tensor that requires one (a leaf may be written inside
    `no_grad`) and for a value that requires one. Raises ArgumentError for a read-only view, as `broadcast_to` gives.
    """
    if x.requires_grad and (x._node is not None or is_grad_enabled()):
        advice = "write to x.detach()" if x._node is None else "build it with where or concat"
        raise GradientError(f"setitem: the tensor requires a gradient, which a write in place would break; {advice}")
    storage = x.storage
    on_host = storage.__class__ is np.ndarray
    if not (storage.flags.writeable if on_host else x.dtype.kind == "block" or writeable(storage)):
        raise ArgumentError(f"setitem: the tensor of shape {x.shape} is a read-only view; write to copy(x)")
    given = _value(x, value)
    prepared: Any = index if on_host and index.__class__ in BASIC else _prepared("setitem", index, x)
    if x.dtype.routed:
        check_movable("setitem", x.dtype, [x])
    try:
        if on_host and given.storage.__class__ is np.ndarray:
            storage[prepared] = given.storage
        else:
            _write_on_gpu(x, prepared, given)
    except (IndexError, TypeError) as error:
        raise _explained("setitem", x, error) from None
    except ValueError:
        target = _read("setitem", x, prepared).shape  # raises where the index is at fault
        raise ShapeError(f"setitem: a value of shape {given.shape} does not fit x[index] of shape {target}") from None
    x._written()


def _write_on_gpu(x: Tensor, index: Index, given: Tensor) -> None:
    if given.ndim and given.device != x.device:
        raise DeviceError(f"setitem: a value on {given.device} for a tensor on {x.device}: move it with .to(device)")
    values = moved_to(given.storage, x.device)
    with beside(x.storage):
        x.storage[index] = values


def _value(x: Tensor, value: Any) -> Tensor:
    """What is written, in x's format."""
    if not isinstance(value, Tensor):
        if isinstance(value, float) and x.dtype.kind != "float":
            return astype(scalar(value, float64), x.dtype)
        if isinstance(value, (bool, int, float)):
            return scalar(value, x.dtype)
        return asarray(value, dtype=x.dtype)
    if value.requires_grad and is_grad_enabled():
        raise GradientError("setitem: the value requires a gradient, which a write in place would lose; detach it")
    return value if value.dtype is x.dtype else astype(value.detach(), x.dtype, copy=False)


# Functions


def take(x: Tensor, indices: Any, /, *, axis: int | None = None) -> Tensor:
    """The slices along `axis` (needed unless x is 1-d) at integer positions, negative ones counted from the end."""
    x = as_tensor(x)
    if axis is None:
        if x.ndim != 1:
            raise ShapeError(f"take: axis must be given for a tensor of {x.ndim} dimensions")
        axis = 0
    where = normalize_axis("take", axis, x.ndim)
    plain_calls.varies()
    positions = _positions("take", indices, x.requires_grad, x, where)
    return _picked("take", x, (slice(None),) * where + (positions,), False)


along_axis: Primitive = Primitive(
    gather_spec.take_along_axis,
    "x indices",
    gradients={
        "x": lambda g, indices, axis, x_shape: _scatter_add(g, indices, axis=axis, size=x_shape[axis]),
    },
)
_scatter_add: Primitive = Primitive(
    gather_spec.scatter_add,
    "g0 indices",
    gradients={"g0": lambda g, indices, axis: along_axis(g, indices, axis=axis)},
)


@remembered
def take_along_axis(x: Tensor, indices: Any, /, *, axis: int = -1) -> Tensor:
    """out[..., i, ...] = x[..., indices[..., i, ...], ...] along `axis`; the other axes broadcast."""
    name = "take_along_axis"
    x = as_tensor(x)
    where = normalize_axis(name, axis, x.ndim)
    beside = isinstance(indices, Tensor) and indices.dtype is int64 and x.storage.__class__ is indices.storage.__class__
    if beside and _same_but(x.shape, indices.shape, where):
        return along_axis(x, copy(indices) if x.requires_grad else indices, axis=where)
    positions = _positions(name, indices, x.requires_grad, x, where)
    if positions.ndim != x.ndim:
        raise ShapeError(f"{name}: {positions.ndim} dimensions of indices for a tensor of shape {x.shape}")
    ours, theirs = x.shape, positions.shape
    if not _same_but(ours, theirs, where):
        common = broadcast_shapes(name, *((*s[:where], *s[where + 1 :]) for s in (ours, theirs)))
        x = broadcast_to(x, (*common[:where], ours[where], *common[where:]))
        positions = np.broadcast_to(positions, (*common[:where], theirs[where], *common[where:]))
    return along_axis(x, Tensor(positions, as_format(positions.dtype)), axis=where)


def _same_but(a: tuple[int, ...], b: tuple[int, ...], axis: int) -> bool:
    """Whether shapes differ on one axis at most."""
    return len(a) == len(b) and a[:axis] == b[:axis] and a[axis + 1 :] == b[axis + 1 :]


def _positions(name: str, indices: Any, keep: bool, x: Tensor, axis: int) -> Array:
    """Integers from whatever a user indexes with, where x lies, and in memory that nobody else writes to if they are to
    `keep`."""
    found = _index_array(name, indices, x)
    array = found if gpu.is_array(found) else np.asarray(found)
    if array.dtype.kind == "b":
        raise FormatError(f"{name}: indices must be integers, got bool; use x[mask]")
    if not array.__class__ is x.storage.__class__ is np.ndarray:
        _check_positions(name, array, axis, x)
        array = _beside("indices", array, x)
    return copied(array) if keep and isinstance(indices, (Tensor, np.ndarray)) else array


def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """The positions (int64) of all elements that are not zero, in row-major order: one tensor per axis."""
    x = as_tensor(x)
    if x.ndim == 0:
        raise ShapeError("nonzero: a 0-d tensor has no axes to give positions on")
    with beside(x.storage):
        return tuple(Tensor(positions, int64) for positions in np.nonzero(values_of(x)))


@remembered
def count_nonzero(x: Tensor, /, *, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """How many elements over `axis` are not zero (int64)."""
    x = as_tensor(x)
    axes = normalize_axes("count_nonzero", axis, x.ndim)
    hit = Tensor(values_of(x) != 0, bool_) if x.dtype.routed else not_equal(x, 0)
    return total(hit, axis=axes, keepdims=keepdims)
