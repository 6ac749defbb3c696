"""Softmax and its logarithm; activations that look at one value at a time are in `elementwise`."""

from __future__ import annotations

from typing import Any

from ulpgrad.differentiable import Primitive
from ulpgrad.kernels.softmax import spec
from ulpgrad.ops import elementwise as ew
from ulpgrad.ops.common import as_tensor, normalize_axis
from ulpgrad.ops.reduction import sum as total
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

__all__ = ["log_softmax", "softmax"]

_softmax_gradient = Primitive(
    spec.softmax_gradient,
    "g0 y0",
    composite=lambda g0, y0, axis: y0 * (g0 - total(g0 * y0, axis=axis, keepdims=True)),
)
_log_softmax_gradient = Primitive(
    spec.log_softmax_gradient,
    "g0 y0",
    composite=lambda g0, y0, axis: g0 - ew.exp(y0) * total(g0, axis=axis, keepdims=True),
)
_softmax = Primitive(spec.softmax, "x", gradients={"x": lambda g, y, axis: _softmax_gradient(g, y, axis=axis)})
_log_softmax = Primitive(
    spec.log_softmax, "x", gradients={"x": lambda g, y, axis: _log_softmax_gradient(g, y, axis=axis)}
)


@remembered
def softmax(x: Any, /, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along an axis, without overflow."""
    x = as_tensor(x)
    out: Tensor = _softmax(x, axis=normalize_axis("softmax", axis, x.ndim))
    return out


@remembered
def log_softmax(x: Any, /, axis: int = -1) -> Tensor:
    """log(softmax(x)) along an axis, exact where softmax would underflow."""
    x = as_tensor(x)
    out: Tensor = _log_softmax(x, axis=normalize_axis("log_softmax", axis, x.ndim))
    return out
