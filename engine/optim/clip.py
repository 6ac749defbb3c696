"""Gradient clipping, between backward and step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.device import beside
from ulpgrad.errors import ArgumentError, GradientError
from ulpgrad.formats import Array, Format, compute_format, float64
from ulpgrad.scaled import multiplied, squares, total
from ulpgrad.tensor import Tensor


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> float | Tensor:
    """Scale all gradients together so that the norm of them all is at most `max_norm`; returns the norm before.

    `norm_type` may be math.inf. Sums are in float64. Raises GradientError for a norm that is not finite, if asked.

    The 2-norm is one pass over the gradients. Those in float32 and float64 are multiplied where they are read next, by the
    optimizer's step as a rule; the bits are those of a pass of its own. Of gradients on one GPU the norm is a tensor without axes
    there, as torch's is, so that nobody waits for it; else a number.
    """
    if not norm_type > 0:
        raise ArgumentError(f"clip_grad_norm_: norm_type={norm_type!r}: expected a number above 0, or math.inf")
    found = [p for p in ([parameters] if isinstance(parameters, Tensor) else parameters) if p.grad is not None]
    wide = [_wide(p) for p in found]
    squared = total(squares(wide)) if norm_type == 2.0 else None
    if squared is None or squared.__class__ is np.ndarray:
        norm = _other(wide, norm_type) if squared is None else math.sqrt(squared)
        if error_if_nonfinite and not math.isfinite(norm):
            raise GradientError(f"clip_grad_norm_: the norm of the gradients is {norm}")
        scale = _scale(max_norm, norm)
        if not scale >= 1.0:
            _multiply(found, wide, scale)
        return norm
    with beside(squared):
        there = np.sqrt(squared)
        if error_if_nonfinite and not math.isfinite(there):
            raise GradientError(f"clip_grad_norm_: the norm of the gradients is {float(there)}")
        scale = _scale(max_norm, there)
        _multiply(found, wide, np.where(scale >= 1.0, 1.0, scale))
    return Tensor(there, float64)


def _wide(p: Tensor) -> Tensor:
    """A parameter's gradient in a format that computes."""
    assert p.grad is not None
    form = compute_format(p.grad.dtype)
    return p.grad if p.grad.dtype is form else Tensor(dispatch.convert(p.grad.storage, p.grad.dtype, form), form)


def _scale(max_norm: float, norm: Any) -> Any:
    return max_norm / (norm + 1e-6)  # torch's guard against a norm of 0


def _multiply(found: list[Tensor], wide: list[Tensor], factor: Any) -> None:
    """Give parameters their gradients times a factor."""
    for p, g in zip(found, multiplied(wide, factor), strict=True):
        assert p.grad is not None
        p.grad = _narrow(g, p.grad.dtype)


def _other(wide: list[Tensor], kind: float) -> float:
    norms = [_norm(g.storage, kind) for g in wide]  # all are asked for before one is waited for
    return float(_norm(np.asarray([float(n) for n in norms]), kind))


def _norm(values: Array, kind: float) -> Any:
    """The norm of an array as a number, or on a GPU as an array without axes."""
    if not values.size:
        return 0.0
    with beside(values):
        if math.isinf(kind):
            return np.abs(values).max()
        return (np.abs(values.astype(np.float64, copy=False)) ** kind).sum() ** (1 / kind)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit every value of every gradient to [-clip_value, clip_value]; NaN stays."""
    if not clip_value >= 0:
        raise ArgumentError(f"clip_grad_value_: clip_value={clip_value!r}: expected a number of at least 0")
    for p in [parameters] if isinstance(parameters, Tensor) else parameters:
        if p.grad is not None:
            wide = _wide(p)
            values = wide.storage
            limit: Any = values.dtype.type(clip_value)
            with beside(values):
                p.grad = _narrow(Tensor(np.clip(values, -limit, limit), wide.dtype), p.grad.dtype)


def _narrow(g: Tensor, form: Format) -> Tensor:
    """A gradient in the format that its parameter's was in. It is a new tensor, as the old one may be another's too."""
    return g if g.dtype is form else Tensor(dispatch.convert(g.storage, g.dtype, form), form)
