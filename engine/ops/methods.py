"""Binds operators and methods of Tensor to the functions of this package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad.errors import ShapeError
from ulpgrad.ops import creation, elementwise, indexing, linalg, manipulation, reduction
from ulpgrad.tensor import Tensor

OPERATORS: dict[str, Callable[..., Any]] = {
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "mul": elementwise.multiply,
    "truediv": elementwise.divide,
    "floordiv": elementwise.floor_divide,
    "mod": elementwise.remainder,
    "pow": elementwise.pow,
    "matmul": linalg.matmul,
    "and": elementwise.bitwise_and,
    "or": elementwise.bitwise_or,
    "xor": elementwise.bitwise_xor,
    "lshift": elementwise.bitwise_left_shift,
    "rshift": elementwise.bitwise_right_shift,
}
COMPARISONS: dict[str, Callable[..., Any]] = {
    "eq": elementwise.equal,
    "ne": elementwise.not_equal,
    "lt": elementwise.less,
    "le": elementwise.less_equal,
    "gt": elementwise.greater,
    "ge": elementwise.greater_equal,
}
UNARY: dict[str, Callable[..., Any]] = {
    "neg": elementwise.negative,
    "pos": elementwise.positive,
    "abs": elementwise.abs,
    "invert": elementwise.bitwise_invert,
}
METHODS = ("sum", "mean", "var", "std", "prod", "max", "min", "all", "any", "argmax", "argmin")
SHORT = ("exp", "log", "sqrt", "tanh", "sigmoid", "relu")


def _reflected(function: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: function(other, self)


def _reduction(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Tensor, axis: Any = None, **options: Any) -> Tensor:
        out: Tensor = function(self, axis=axis, **options)
        return out

    method.__doc__ = function.__doc__
    return method


def _reshape(self: Tensor, *shape: Any, copy: bool | None = None) -> Tensor:
    return manipulation.reshape(self, shape[0] if len(shape) == 1 else shape, copy=copy)


def _transpose(self: Tensor) -> Tensor:
    if self.ndim != 2:
        raise ShapeError(f"T: expected two dimensions, got shape {self.shape}; use mT or permute_dims")
    return manipulation.matrix_transpose(self)


def bind() -> None:
    """Give Tensor its operators and methods."""
    for name, function in OPERATORS.items():
        setattr(Tensor, f"__{name}__", function)
        setattr(Tensor, f"__r{name}__", _reflected(function))
    for name, function in {**COMPARISONS, **UNARY}.items():
        setattr(Tensor, f"__{name}__", function)
    for name in METHODS:
        setattr(Tensor, name, _reduction(getattr(reduction, name)))
    for name in SHORT:
        setattr(Tensor, name, getattr(elementwise, name))
    bound: dict[str, Any] = {
        "reshape": _reshape,
        "flatten": manipulation.flatten,
        "astype": creation.astype,
        "__getitem__": indexing.getitem,
        "__setitem__": indexing.setitem,
        "T": property(_transpose),
        "mT": property(manipulation.matrix_transpose),
    }
    for name, value in bound.items():
        setattr(Tensor, name, value)
