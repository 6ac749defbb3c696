"""Scaled dot-product attention in one kernel, which never holds the whole matrix of weights."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from ulpgrad.autograd import is_grad_enabled
from ulpgrad.device import CPU
from ulpgrad.differentiable import Primitive, plain_calls
from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import bool_
from ulpgrad.kernels.attention import spec
from ulpgrad.kernels.attention.spec import Dropout, Window
from ulpgrad.ops import elementwise as ew
from ulpgrad.ops.common import as_tensor, broadcast_shapes
from ulpgrad.ops.dropout import dropped
from ulpgrad.ops.linalg import matmul
from ulpgrad.ops.manipulation import broadcast_to, matrix_transpose, reshape
from ulpgrad.ops.reduction import max as largest, sum as total
from ulpgrad.random import Generator, generator_or_default
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

__all__ = ["scaled_dot_product_attention"]


def _for_every_head(a: Tensor, q: Tensor) -> Tensor:
    """Keys or values, each head repeated for the heads of q that it serves."""
    if a.shape[:-2] == q.shape[:-2]:
        return a
    *lead, heads, length, size = a.shape
    share = q.shape[-3] // heads
    each = broadcast_to(reshape(a, (*lead, heads, 1, length, size)), (*lead, heads, share, length, size))
    return reshape(each, (*lead, heads * share, length, size))


def _near(q: Tensor, k: Tensor, window: tuple[int, int]) -> Tensor:
    """Which keys lie within a window of each query, as a mask beside them."""
    plain_calls.varies()  # a tensor that no operand is
    near: Tensor = Tensor(spec.local(q.shape[-2], k.shape[-2], window), bool_).to(q.device)
    return near


def _composite(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    is_causal: bool,
    scale: float,
    window: Window = None,
    dropout: Dropout | None = None,
) -> Tensor:
    """The same, step by step. A row that attends to nothing gives zeros."""
    k, v = _for_every_head(k, q), _for_every_head(v, q)
    scores = matmul(q, matrix_transpose(k)) * scale
    if is_causal:
        seen = Tensor(np.tri(*scores.shape[-2:], dtype=np.bool_), bool_).to(scores.device)
        scores = ew.where(seen, scores, -math.inf)
    if window is not None:
        scores = ew.where(_near(q, k, window), scores, -math.inf)
    if mask is not None:
        scores = ew.where(mask, scores, -math.inf) if mask.dtype is bool_ else scores + mask
    top = largest(scores.detach(), axis=-1, keepdims=True)
    weights = ew.exp(scores - ew.where(ew.isinf(top), 0.0, top))
    norm = total(weights, axis=-1, keepdims=True)
    if dropout is not None:
        weights = dropped(weights, **dropout._asdict())
    return matmul(weights, v) / ew.where(norm == 0.0, 1.0, norm)


def _joint(
    g: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    y: Tensor,
    lse: Tensor,
    params: dict[str, Any],
) -> tuple[Tensor | None, ...]:
    return (*_attention_gradient.every(g, q, k, v, mask, y, lse, **params), None)


_attention = Primitive(spec.attention, "q k v mask", "y lse", joint=_joint, composite=_composite)
_attention_gradient = Primitive(spec.attention_gradient, "g0 q k v mask y lse", "dq dk dv")


def _check_heads(name: str, q: Tensor, k: Tensor, v: Tensor) -> None:
    for what, t in (("q", q), ("k", k), ("v", v)):
        if t.ndim < 3:
            raise ShapeError(f"{name}: {what} has shape {t.shape}: enable_gqa expects (heads, length, size) at the end")
    heads, shared = q.shape[-3], k.shape[-3]
    if k.shape[-3] != v.shape[-3] or shared == 0 or heads % shared:
        raise ShapeError(
            f"{name}: k has {shared} heads and v {v.shape[-3]}: expected the same number in both, a divisor of q's {heads}"
        )


def _window(name: str, given: Any) -> Window:
    """A window as kernels take it: None where it hides nothing."""
    if given is None:
        return None
    try:
        left, right = map(operator.index, given)
    except (TypeError, ValueError):
        left = right = -2
    if min(left, right) < -1:
        raise ArgumentError(f"{name}: window_size={given!r}: expected (left, right), numbers of keys, -1 for all")
    return None if left == right == -1 else (left, right)


def _dropout(name: str, p: float, generator: Generator | None, q: Tensor, k: Tensor) -> Dropout:
    """The next words of a generator, one for every weight."""
    plain_calls.varies()  # the next call takes others
    key, counter = generator_or_default(name, generator).reserve(math.prod(q.shape[:-1]) * k.shape[-2])
    return Dropout(float(p), key, counter)


@remembered
def scaled_dot_product_attention(q: Any, k: Any, v: Any, mask: Any = None, is_causal: bool = False,
                                 scale: float | None = None, enable_gqa: bool = False,
                                 window_size: tuple[int, int] | None = None, dropout_p: float = 0.0, training: bool = True,
                                 generator: Generator | None = None) -> Tensor:  # fmt: skip
    """softmax(scale q kᵀ + mask) v over the last two axes (Vaswani et al. 2017).

    q (..., l, d), k (..., s, d), v (..., s, e) -> (..., l, e), usually with (batch, heads) in front; leading axes
    broadcast. `mask` broadcasts to (..., l, s): bool (True: attend) or a float added to the scores. `is_causal` lets
    row i attend to columns 0 to i. `scale` is 1 / sqrt(d) unless given. A row that may attend to nothing gives zeros.
    With `enable_gqa` (Ainslie et al. 2023), k and v may have fewer heads (axis -3) than q, each for as many heads of q
    in a row. With `window_size` = (left, right) (Beltagy et al. 2020), row i attends to columns i - left to i + right, -1
    for all on that side: time and memory of a GPU grow with the window; on the CPU it becomes a mask.

    In training, each weight of the softmax is dropped with probability `dropout_p`, or divided by 1 - dropout_p, by the
    next words of `generator` (or of ulpgrad.random's default one): those that `dropout` of all weights, (..., l, s),
    would take. They are never all in memory, and backward draws them again.

    Raises ShapeError where shapes do not fit, ArgumentError for a window that is none and for dropout_p outside [0, 1).
    """
    q, k, v = as_tensor(q), as_tensor(k), as_tensor(v)
    mask = None if mask is None else as_tensor(mask)
    name = "scaled_dot_product_attention"
    for what, t in (("q", q), ("k", k), ("v", v)):
        if t.ndim < 2:
            raise ShapeError(f"{name}: {what} has shape {t.shape}: expected at least (length, size)")
    if not 0 <= dropout_p < 1:
        raise ArgumentError(f"{name}: dropout_p={dropout_p!r}: expected a probability of at least 0 and below 1")
    own = 3 if enable_gqa else 2  # axes at the end that are not broadcast
    if enable_gqa:
        _check_heads(name, q, k, v)
    if not q.shape[:-own] == k.shape[:-own] == v.shape[:-own]:
        lead = broadcast_shapes(name, q.shape[:-own], k.shape[:-own], v.shape[:-own])
        q, k, v = (broadcast_to(t, (*lead, *t.shape[-own:])) for t in (q, k, v))
    if scale is None:
        scale = 1.0 / math.sqrt(q.shape[-1]) if q.shape[-1] else 1.0
    params: dict[str, Any] = {"is_causal": bool(is_causal), "scale": float(scale)}
    if dropout_p and training:
        params["dropout"] = _dropout(name, dropout_p, generator, q, k)
    window = _window(name, window_size)
    if window is not None and q.device != CPU:
        params["window"] = window
    elif window is not None:  # the CPU's kernels know none
        near = _near(q, k, window)
        mask = near if mask is None else mask & near if mask.dtype is bool_ else ew.where(near, mask, -math.inf)
    if mask is not None and mask.requires_grad and is_grad_enabled():  # the fused gradient gives none for the mask
        return _composite(q, k, v, mask, **params)
    return _attention(q, k, v, mask, **params)
