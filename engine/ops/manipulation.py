"""Manipulation functions of the array API standard (2024.12). Values only change place: each function says how, and how a
gradient finds its way back. Views share memory with their input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ulpgrad.device import beside
from ulpgrad.differentiable import moved, viewed
from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats.promotion import result_format
from ulpgrad.kernels.copy import copied, joining, rolling, stacking, tiled
from ulpgrad.ops.common import (
    as_tensor,
    broadcast_shapes,
    checked_shape,
    normalize_axes,
    normalize_axis,
    normalize_shape,
)
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

__all__ = [
    "broadcast_arrays",
    "broadcast_to",
    "concat",
    "expand_dims",
    "flatten",
    "flip",
    "matrix_transpose",
    "moveaxis",
    "permute_dims",
    "repeat",
    "reshape",
    "roll",
    "squeeze",
    "stack",
    "tile",
    "unstack",
]


@remembered
def reshape(x: Tensor, /, shape: Any, *, copy: bool | None = None) -> Tensor:
    """The same elements in row-major order in another shape; one size may be -1. A view where the layout allows it."""
    x = as_tensor(x)
    sizes = normalize_shape("reshape", shape)
    old = x.storage
    try:
        if sizes and min(sizes) < -1:
            raise ValueError
        new = old.reshape(sizes) if old.__class__ is np.ndarray else _reshaped(old, sizes)
    except ValueError:
        if sizes.count(-1) > 1 or min(sizes, default=0) < -1:
            raise ShapeError(f"reshape: at most one size may be -1 and none less, got {sizes}") from None
        raise ShapeError(f"reshape: {x.size} elements of shape {x.shape} do not fit shape {sizes}") from None
    shared = _is_view(new, old)
    if copy is False and not shared:
        raise ArgumentError(f"reshape: {sizes} cannot be a view of this layout of {x.shape}; drop copy=False")
    shape = old.shape

    def back(g: Tensor) -> Tensor:
        return reshape(g, shape)

    if shared and not copy:
        return viewed("reshape", x, new, back)
    if shared:
        return moved("reshape", [x], lambda a: copied(a.reshape(sizes)), back)
    return moved("reshape", [x], lambda a: a.reshape(sizes), back, storage=new)


def _reshaped(storage: Any, sizes: tuple[int, ...]) -> Any:
    with beside(storage):
        return storage.reshape(sizes)


def _is_view(new: Any, old: Any) -> bool:
    """Whether an array lies in the memory of the one it was made of."""
    if old.__class__ is np.ndarray:
        return new.base is old or (new.base is not None and new.base is old.base)
    return bool(new.data.ptr == old.data.ptr)


@remembered
def permute_dims(x: Tensor, /, axes: Sequence[int]) -> Tensor:
    """The axes in another order: a view."""
    x = as_tensor(x)
    order = normalize_axes("permute_dims", tuple(axes), x.ndim)
    if len(order) != x.ndim:
        raise ShapeError(
            f"permute_dims: axes {tuple(axes)} must name each of the {x.ndim} dimensions of {x.shape} once"
        )
    inverse = tuple(sorted(range(x.ndim), key=order.__getitem__))
    return viewed("permute_dims", x, x.storage.transpose(order), lambda g: permute_dims(g, inverse))


@remembered
def matrix_transpose(x: Tensor, /) -> Tensor:
    """The last two axes exchanged: a view."""
    x = as_tensor(x)
    if x.ndim < 2:
        raise ShapeError(f"matrix_transpose: expected at least two dimensions, got shape {x.shape}")
    return viewed("matrix_transpose", x, x.storage.swapaxes(-1, -2), matrix_transpose)


@remembered
def moveaxis(x: Tensor, source: int | Sequence[int], destination: int | Sequence[int], /) -> Tensor:
    """Axes moved to other places, the rest in their order: a view."""
    x = as_tensor(x)
    sources = normalize_axes("moveaxis", source, x.ndim)
    targets = normalize_axes("moveaxis", destination, x.ndim)
    if len(sources) != len(targets):
        raise ShapeError(f"moveaxis: {len(sources)} source axes but {len(targets)} destinations")
    order = [i for i in range(x.ndim) if i not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        order.insert(target, axis)
    return permute_dims(x, order)


@remembered
def squeeze(x: Tensor, /, axis: int | tuple[int, ...]) -> Tensor:
    """Without the axes named, which must have size 1: a view."""
    x = as_tensor(x)
    axes = normalize_axes("squeeze", axis, x.ndim)
    if any(x.shape[a] != 1 for a in axes):
        raise ShapeError(f"squeeze: axis {axis} of shape {x.shape} does not have size 1")
    return reshape(x, tuple(s for i, s in enumerate(x.shape) if i not in axes))


@remembered
def expand_dims(x: Tensor, /, axis: int = 0) -> Tensor:
    """A new axis of size 1 at `axis`: a view."""
    x = as_tensor(x)
    position = normalize_axis("expand_dims", axis, x.ndim + 1)
    return reshape(x, (*x.shape[:position], 1, *x.shape[position:]))


@remembered
def flatten(x: Tensor, /, start: int = 0, end: int = -1) -> Tensor:
    """The axes from start to end (inclusive) as one."""
    x = as_tensor(x)
    if x.ndim == 0:
        return reshape(x, (1,))
    first, last = normalize_axis("flatten", start, x.ndim), normalize_axis("flatten", end, x.ndim)
    if first > last:
        raise ArgumentError(f"flatten: start axis {start} lies behind end axis {end}")
    return reshape(x, (*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))


@remembered
def broadcast_to(x: Tensor, /, shape: Any) -> Tensor:
    """x repeated without copying to a larger shape: a view, to be read only."""
    x = as_tensor(x)
    target = checked_shape("broadcast_to", shape)
    if broadcast_shapes("broadcast_to", x.shape, target) != target:
        raise ShapeError(f"broadcast_to: shape {x.shape} is larger than the target {target}")
    return viewed("broadcast_to", x, np.broadcast_to(x.storage, target), lambda g: g)


def broadcast_arrays(*arrays: Tensor) -> list[Tensor]:
    """All tensors in their common shape."""
    tensors = [as_tensor(a) for a in arrays]
    shape = broadcast_shapes("broadcast_arrays", *(t.shape for t in tensors))
    return [broadcast_to(t, shape) for t in tensors]


def _together(name: str, arrays: Sequence[Any]) -> list[Tensor]:
    """Tensors in one promoted format."""
    from ulpgrad.ops.creation import astype

    if isinstance(arrays, Tensor):
        arrays = list(arrays)
    if not arrays:
        raise ArgumentError(f"{name}: expected at least one tensor")
    tensors = [as_tensor(a) for a in arrays]
    form = result_format(*(t.dtype for t in tensors))
    return [astype(t, form, copy=False) for t in tensors]


@remembered
def concat(arrays: Sequence[Any], /, *, axis: int | None = 0) -> Tensor:
    """Tensors joined along an axis (None: flattened first). All other sizes must be equal."""
    tensors = _together("concat", arrays)
    if axis is None:
        tensors, axis = [reshape(t, (-1,)) for t in tensors], 0
    where = normalize_axis("concat", axis, tensors[0].ndim)
    for t in tensors[1:]:
        same = t.ndim == tensors[0].ndim
        if not same or any(
            s != r for i, (s, r) in enumerate(zip(t.shape, tensors[0].shape, strict=True)) if i != where
        ):
            raise ShapeError(f"concat: shapes {tensors[0].shape} and {t.shape} differ elsewhere than on axis {where}")
    ends = np.cumsum([t.shape[where] for t in tensors]).tolist()

    def back(g: Tensor) -> tuple[Tensor, ...]:
        starts = [0, *ends[:-1]]
        return tuple(g[(slice(None),) * where + (slice(s, e),)] for s, e in zip(starts, ends, strict=True))

    return moved("concat", tensors, joining([t.storage for t in tensors], where), back)


@remembered
def stack(arrays: Sequence[Any], /, *, axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    tensors = _together("stack", arrays)
    if any(t.shape != tensors[0].shape for t in tensors):
        raise ShapeError(f"stack: all shapes must be equal, got {', '.join(str(t.shape) for t in tensors)}")
    where = normalize_axis("stack", axis, tensors[0].ndim + 1)
    return moved("stack", tensors, stacking([t.storage for t in tensors], where), lambda g: unstack(g, axis=where))


@remembered
def unstack(x: Tensor, /, *, axis: int = 0) -> tuple[Tensor, ...]:
    """The slices along an axis: views."""
    x = as_tensor(x)
    where = normalize_axis("unstack", axis, x.ndim)
    return tuple(x[(slice(None),) * where + (i,)] for i in range(x.shape[where]))


@remembered
def flip(x: Tensor, /, *, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """The order of elements reversed along axes (None: all): a view."""
    x = as_tensor(x)
    axes = normalize_axes("flip", axis, x.ndim)
    turned = (*(slice(None, None, -1) if i in axes else slice(None) for i in range(x.ndim)), ...)
    return viewed("flip", x, x.storage[turned], lambda g: flip(g, axis=axes))


@remembered
def roll(x: Tensor, /, shift: int | tuple[int, ...], *, axis: int | tuple[int, ...] | None = None) -> Tensor:
    """Elements shifted along axes, those pushed out coming in at the other end (None: in flattened order)."""
    x = as_tensor(x)
    if axis is not None:
        axis = normalize_axes("roll", axis, x.ndim)
    shifts = shift if isinstance(shift, tuple) else (shift,)
    if not all(isinstance(s, (int, np.integer)) for s in shifts):
        raise ArgumentError(f"roll: the shift must be an integer or a tuple of them, got {shift!r}")
    if axis is not None and len(shifts) not in (1, len(axis)):
        raise ArgumentError(f"roll: {len(shifts)} shifts for {len(axis)} axes")
    opposite = tuple(-s for s in shifts) if isinstance(shift, tuple) else -shift
    return moved("roll", [x], rolling(x.shape, shift, axis), lambda g: roll(g, opposite, axis=axis))


@remembered
def tile(x: Tensor, repetitions: Sequence[int], /) -> Tensor:
    """x repeated whole, `repetitions` times along each axis."""
    from ulpgrad.ops.reduction import sum as total

    x = as_tensor(x)
    counts = checked_shape("tile", repetitions)
    ndim = max(x.ndim, len(counts))
    counts = (1,) * (ndim - len(counts)) + counts
    own, shape = x.shape, (1,) * (ndim - x.ndim) + x.shape
    checked_shape("tile", tuple(c * s for c, s in zip(counts, shape, strict=True)))

    def back(g: Tensor) -> Tensor:
        split = reshape(g, tuple(v for c, s in zip(counts, shape, strict=True) for v in (c, s)))
        return reshape(total(split, axis=tuple(range(0, 2 * ndim, 2))), own)

    return moved("tile", [x], lambda a: tiled(a.reshape(shape), counts), back)


@remembered
def repeat(x: Tensor, repeats: int | Tensor, /, *, axis: int | None = None) -> Tensor:
    """Each element repeated in place, `repeats` times (a number, or one per position) along an axis (None: flattened)."""
    x = as_tensor(x)
    if axis is None:
        x, axis = reshape(x, (-1,)), 0
    where = normalize_axis("repeat", axis, x.ndim)
    if repeats.__class__ is not int:
        return _repeat_each(x, repeats, where)
    if repeats < 0:
        raise ArgumentError(f"repeat: repeats must be integers of at least 0, got {repeats!r}")
    before, size, behind = x.shape[:where], x.shape[where], x.shape[where + 1 :]
    checked_shape("repeat", (*before, repeats * size, *behind))

    def back(g: Tensor) -> Tensor:
        from ulpgrad.ops.reduction import sum as total

        return total(reshape(g, (*before, size, repeats, *behind)), axis=where + 1)

    return moved("repeat", [x], lambda a: a.repeat(repeats, where), back)


def _repeat_each(x: Tensor, repeats: Any, where: int) -> Tensor:
    """Each position as often as its own number says."""
    from ulpgrad.ops.indexing import take

    try:
        counts = repeats.numpy() if isinstance(repeats, Tensor) else np.asarray(repeats)
    except ValueError:  # ragged
        counts = np.asarray(None)
    if counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ArgumentError(f"repeat: repeats must be integers of at least 0, got {repeats!r}")
    if counts.ndim and counts.shape not in ((1,), (x.shape[where],)):
        raise ShapeError(f"repeat: {counts.shape} repeats for {x.shape[where]} positions on axis {where}")
    total = int(counts.sum(dtype=np.float64)) * (1 if counts.size > 1 else x.shape[where])
    checked_shape("repeat", (*x.shape[:where], total, *x.shape[where + 1 :]))
    return take(x, as_tensor(np.repeat(np.arange(x.shape[where]), counts)), axis=where)
