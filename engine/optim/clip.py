"""Gradient clipping, between backward and step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.device import beside
from ulpgrad.errors import ArgumentError, GradientError
from ulpgrad.formats import Array, compute_format
from ulpgrad.tensor import Tensor


def _with_gradients(parameters: Tensor | Iterable[Tensor]) -> list[tuple[Tensor, Array]]:
    """Parameters that have a gradient, and that gradient in a format that computes."""
    found = []
    for p in [parameters] if isinstance(parameters, Tensor) else parameters:
        if p.grad is not None:
            found.append((p, dispatch.convert(p.grad.storage, p.grad.dtype, compute_format(p.grad.dtype))))
    return found


def _replace(p: Tensor, values: Array) -> None:
    """Give a parameter a new gradient; the old tensor may be another's too, so it is not written to."""
    assert p.grad is not None
    form = p.grad.dtype
    p.grad = Tensor(dispatch.convert(values, compute_format(form), form), form)


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False
) -> float:
    """Scale all gradients together so that the norm of them all is at most `max_norm`; returns the norm before.

    `norm_type` may be math.inf. Sums are in float64. Raises GradientError for a norm that is not finite, if asked.
    """
    if not norm_type > 0:
        raise ArgumentError(f"clip_grad_norm_: norm_type={norm_type!r}: expected a number above 0, or math.inf")
    found = _with_gradients(parameters)
    norms = [_norm(g, norm_type) for _, g in found]
    total = float(_norm(np.asarray([float(n) for n in norms]), norm_type))
    if error_if_nonfinite and not math.isfinite(total):
        raise GradientError(f"clip_grad_norm_: the norm of the gradients is {total}")
    scale = max_norm / (total + 1e-6)  # torch's guard against a norm of 0
    if not scale >= 1.0:
        for p, g in found:
            with beside(g):
                _replace(p, g * g.dtype.type(scale))
    return total


def _norm(values: Array, kind: float) -> Any:
    """The norm of an array as a number, or on a GPU as an array without axes: all are asked for before one is waited for."""
    if not values.size:
        return 0.0
    with beside(values):
        if math.isinf(kind):
            return np.abs(values).max()
        wide = values.reshape(-1).astype(np.float64, copy=False)
        if kind == 2.0:
            return np.sqrt(np.dot(wide, wide))
        return (np.abs(wide) ** kind).sum() ** (1 / kind)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit every value of every gradient to [-clip_value, clip_value]; NaN stays."""
    if not clip_value >= 0:
        raise ArgumentError(f"clip_grad_value_: clip_value={clip_value!r}: expected a number of at least 0")
    for p, g in _with_gradients(parameters):
        limit: Any = g.dtype.type(clip_value)
        with beside(g):
            _replace(p, np.clip(g, -limit, limit))
