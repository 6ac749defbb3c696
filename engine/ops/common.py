"""What the functions of this package share: turning arguments into tensors and axes into positions."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ulpgrad.differentiable import plain_calls
from ulpgrad.errors import ArgumentError, AxisError, FormatError, ShapeError
from ulpgrad.formats import Array, Format, Integer, as_format, get_default_dtype
from ulpgrad.tensor import Tensor

Axis = int | tuple[int, ...] | None
LARGEST = 2**60  # elements: NumPy counts bytes in 63 bits


def as_tensor(given: Any, dtype: Format | None = None) -> Tensor:
    """A Tensor from a Tensor (unchanged), an array of any library, or Python numbers."""
    if isinstance(given, Tensor):
        return given
    from ulpgrad.ops.creation import asarray

    return asarray(given, dtype=dtype)


def scalar(value: bool | int | float, form: Format) -> Tensor:
    """A 0-d tensor of a Python number in a format."""
    made = _scalar(value, type(value).__name__, value == 0 and math.copysign(1.0, value), form)
    if plain_calls.listeners:
        plain_calls.numbers.append(made)
    return made


def _make_scalar(value: Any, form: Format) -> Tensor:
    if isinstance(form, Integer) and not form.min <= value <= form.max:
        raise FormatError(f"{value} does not fit {form.name}, which holds {form.min} to {form.max}")
    if form.kind == "fixed":
        return Tensor(form.encode(np.asarray(value, dtype=np.float64), overflow="raise"), form)
    kind = form.storage if form.kind in ("integer", "bool") else np.float64
    return Tensor(form.encode(np.asarray(value, dtype=kind)), form)


@lru_cache(1024)
def _scalar(value: Any, kind: str, sign_of_zero: float, form: Format) -> Tensor:
    """One tensor for each number: 1, True and 1.0, or 0.0 and -0.0, are equal and yet not the same."""
    return _make_scalar(value, form)


def weak_format(value: bool | int | float, other: Format) -> Format:
    """The format a Python number takes beside a tensor: the tensor's own, unless it cannot hold that kind of number."""
    if isinstance(value, bool) or other.kind in ("float", "fixed"):
        return other
    if isinstance(value, int):
        return other if other.kind == "integer" else as_format(int)
    return get_default_dtype()


def operands(name: str, x1: Any, x2: Any) -> tuple[Tensor, Tensor]:
    """Both operands of a binary function as tensors; a Python number takes the format of the other."""
    first, second = isinstance(x1, Tensor), isinstance(x2, Tensor)
    if first and second:
        return x1, x2
    if not first and not second:
        x1 = as_tensor(x1)
        first = True
    tensor, other = (x1, x2) if first else (x2, x1)
    if isinstance(other, int) and name.endswith("_shift") and tensor.dtype.kind == "fixed":
        other = scalar(other, as_format(int))  # places to shift by, not a value
    elif isinstance(other, (bool, int, float)):
        other = scalar(other, weak_format(other, tensor.dtype) if not isinstance(other, bool) else as_format(bool))
    else:
        try:
            other = beside(tensor, as_tensor(other), other)
        except FormatError as error:
            raise FormatError(f"{name}: cannot take an operand of type {type(other).__name__}: {error}") from None
    return (tensor, other) if first else (other, tensor)


def beside(tensor: Tensor, made: Tensor, given: Any) -> Tensor:
    """A tensor made of arrays and numbers, where the tensor is that it meets; what was a tensor itself stays where it is."""
    if isinstance(given, Tensor) or made.device == tensor.device or made.device.type != "cpu":
        return made
    return made.to(tensor.device)  # type: ignore[no-any-return]


def normalize_axis(name: str, axis: Any, ndim: int) -> int:
    """A non-negative axis. AxisError if it is outside, ArgumentError if it is no integer."""
    try:
        position = operator.index(axis)
    except TypeError:
        raise ArgumentError(f"{name}: axis must be an integer, got {axis!r}") from None
    if not -ndim <= position < ndim:
        expected = f"expected {-ndim} to {ndim - 1}" if ndim else "a 0-d tensor has no axes"
        raise AxisError(f"{name}: axis {position} is outside a tensor of {ndim} dimensions; {expected}")
    return position % ndim


def normalize_axes(name: str, axis: Any, ndim: int) -> tuple[int, ...]:
    """Non-negative axes from one, several or None (all). ArgumentError if one is given twice."""
    if axis is None:
        return tuple(range(ndim))
    if axis.__class__ is int and -ndim <= axis < ndim:  # by far the commonest
        return (axis % ndim,)
    given = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = tuple(normalize_axis(name, a, ndim) for a in given)
    if len(set(axes)) != len(axes):
        raise ArgumentError(f"{name}: axis {axis!r} names an axis twice")
    return axes


def normalize_shape(name: str, shape: Any) -> tuple[int, ...]:
    """A shape from an integer or a sequence of them."""
    if shape.__class__ is tuple and all(s.__class__ is int for s in shape):
        return shape
    try:
        return (operator.index(shape),)
    except TypeError:
        pass
    try:
        return tuple(operator.index(s) for s in shape)
    except TypeError:
        raise ArgumentError(f"{name}: a shape is an integer or a sequence of integers, got {shape!r}") from None


def checked_shape(name: str, shape: Any) -> tuple[int, ...]:
    """`normalize_shape` for a new tensor: no negative size, and not more than memory can be asked for."""
    sizes = normalize_shape(name, shape)
    if any(s < 0 for s in sizes):
        raise ShapeError(f"{name}: sizes must not be negative, got {sizes}")
    if math.prod(s for s in sizes if s) >= LARGEST:
        raise ShapeError(f"{name}: no array can hold the elements of shape {sizes}")
    return sizes


def broadcast_shapes(name: str, *shapes: Sequence[int]) -> tuple[int, ...]:
    """The common shape, or a ShapeError that names the shapes and the axis."""
    try:
        return np.broadcast_shapes(*map(tuple, shapes))
    except ValueError:
        ndim = max(map(len, shapes))
        for axis in range(-1, -ndim - 1, -1):
            sizes = {s[axis] for s in shapes if len(s) >= -axis} - {1}
            if len(sizes) > 1:
                break
        listed = " and ".join(str(tuple(s)) for s in shapes)
        differ = " != ".join(map(str, sorted(sizes)))
        raise ShapeError(f"{name}: shapes {listed} do not broadcast: {differ} on axis {axis}") from None


def whole(name: str, what: str, value: Any, axes: int, least: int) -> tuple[int, ...]:
    """One number for each axis, from one for all or a sequence of them."""
    given = tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes
    if len(given) != axes or not all(isinstance(v, (int, np.integer)) and v >= least for v in given):
        several = "" if axes == 1 else " or a pair of them" if axes == 2 else f" or {axes} of them"
        raise ArgumentError(f"{name}: {what} must be an integer of at least {least}{several}, got {value!r}")
    return tuple(map(int, given))


def pair(name: str, what: str, value: Any, least: int = 0) -> tuple[int, int]:
    """(vertical, horizontal) from one integer or two."""
    down, across = whole(name, what, value, 2, least)
    return down, across


__all__ = ["LARGEST", "Array", "Axis", "as_tensor", "beside", "broadcast_shapes", "checked_shape", "normalize_axes",
           "normalize_axis", "normalize_shape", "operands", "pair", "scalar", "weak_format", "whole"]  # fmt: skip
