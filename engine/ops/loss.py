"""Losses, with torch's names, arguments and averages."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.device import beside as on_device_of, elsewhere
from ulpgrad.differentiable import Primitive, plain_calls, prepared, whole
from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.formats import compute_format, float64
from ulpgrad.kernels.cross_entropy import spec
from ulpgrad.ops import elementwise as ew
from ulpgrad.ops.activation import log_softmax
from ulpgrad.ops.common import as_tensor, beside, operands, scalar
from ulpgrad.ops.creation import arange, astype, ones
from ulpgrad.ops.indexing import take, take_along_axis
from ulpgrad.ops.manipulation import moveaxis, reshape
from ulpgrad.ops.reduction import mean as average, sum as total
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

__all__ = ["bce_with_logits", "cross_entropy", "mse_loss", "nll_loss"]

REDUCTIONS = ("mean", "sum", "none")


def reduced(name: str, losses: Tensor, reduction: str, weights: Tensor | int | None = None) -> Tensor:
    """Losses as they are, summed, or averaged: over all, over a number of them, or over their weights."""
    if reduction == "none":
        return losses
    if reduction == "sum":
        return total(losses)
    if reduction != "mean":
        raise ArgumentError(f"{name}: reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    if weights is None or (isinstance(weights, int) and weights == losses.size):
        return average(losses)
    wide = compute_format(losses.dtype)  # counts above 256 are not exact in bfloat16
    divisor = scalar(float(weights), wide) if isinstance(weights, int) else total(weights, dtype=wide)
    return astype(total(losses, dtype=wide) / divisor, losses.dtype, copy=False)


# Class indices


def _row_losses(logits: Tensor, target: Tensor, ignore_index: int | None, label_smoothing: float) -> Tensor:
    """cross_entropy of rows as a formula that can be differentiated again."""
    chances = _one_hot(target, logits, ignore_index, label_smoothing)
    return -total(_weighted(chances, log_softmax(logits)), axis=-1)


_cross_entropy_gradient = Primitive(spec.cross_entropy_gradient, "g0 logits target lse")
_cross_entropy = Primitive(
    spec.cross_entropy,
    "logits target",
    "y lse",
    gradients={
        "logits": lambda g, logits, target, lse, ignore_index, label_smoothing: _cross_entropy_gradient(
            g, logits, target, lse, ignore_index=ignore_index, label_smoothing=label_smoothing
        )
    },
    composite=_row_losses,
)


def _one_hot(target: Tensor, like: Tensor, ignore_index: int | None, label_smoothing: float) -> Tensor:
    """The distribution each row is compared with; all zero in ignored rows."""
    rows, classes = like.shape
    if like.device.type != "cpu":
        column = reshape(target, (rows, 1))
        hit = astype(arange(classes, dtype=target.dtype, device=elsewhere(like.storage)) == column, float64)
        mixed = hit * (1.0 - label_smoothing) + label_smoothing / max(classes, 1)
        return astype(ew.where(column == ignore_index, 0.0, mixed), like.dtype)
    chances = np.full((rows, classes), label_smoothing / max(classes, 1))
    kept = target.storage != spec.ignored(ignore_index)
    chances[np.flatnonzero(kept), target.storage[kept]] += 1.0 - label_smoothing
    chances[~kept] = 0.0
    return Tensor(like.dtype.encode(chances), like.dtype)


def _weighted(chances: Tensor, values: Tensor) -> Tensor:
    """chances * values, where a chance of 0 gives 0 even of an infinite value."""
    return ew.where(chances == 0.0, 0.0, chances * values)


def _rows(name: str, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(n, c) and (n,) from (c,) and (), (n, c) and (n,), or (n, c, d1, ...) and (n, d1, ...)."""
    if x.ndim == 0:
        raise ShapeError(f"{name}: expected classes on axis 1, or on axis 0 of one sample; got a 0-d tensor")
    axis = min(x.ndim - 1, 1)
    expected = (*x.shape[:axis], *x.shape[axis + 1 :])
    if target.shape != expected:
        raise ShapeError(
            f"{name}: target has shape {target.shape}: expected {expected}, one class index for each of {x.shape}"
        )
    if target.dtype.kind != "integer":
        raise FormatError(f"{name}: targets are {target.dtype.name}: expected integers, the indices of classes")
    if x.ndim == 2:
        return x, target
    return reshape(moveaxis(x, axis, -1), (-1, x.shape[axis])), reshape(target, (-1,))


def _class_weights(name: str, weight: Any, classes: int, like: Tensor) -> Tensor | None:
    if weight is None:
        return None
    weights = beside(like, as_tensor(weight), weight)
    if weights.shape != (classes,):
        raise ShapeError(f"{name}: weight has shape {weights.shape}: expected ({classes},), one per class")
    return weights


def _weights_of(weight: Tensor | None, target: Tensor, ignore_index: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Per row the (valid) class, and its weight: 0 where ignored."""
    kept = target != ignore_index
    classes = ew.where(kept, target, 0)
    row = (
        ones(target.shape, dtype=like.dtype, device=elsewhere(like.storage))
        if weight is None
        else take(weight, classes, axis=0)
    )
    return classes, ew.where(kept, row, 0.0)


@remembered
@whole
def cross_entropy(
    logits: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(logits)[target]: logits (c,), (n, c) or (n, c, d1, ...); target without c, of class indices,
    or with c, of probabilities.

    `weight` (c,) scales each class; targets equal to `ignore_index` lose nothing and do not count; `label_smoothing` s
    mixes s / c of every class into the target (Szegedy et al. 2016). `reduction` is "mean" (over the weights of what
    counts), "sum" or "none". Raises ArgumentError for a class out of range.
    """
    logits, target = as_tensor(logits), as_tensor(target)
    if target.dtype.kind == "float":
        return _cross_entropy_of_chances(logits, target, weight, reduction, label_smoothing)
    if weight is None and reduction == "mean" and target.device.type != "cpu":
        return _counted_cross_entropy(logits, target, ignore_index, label_smoothing)
    rows, classes = _rows("cross_entropy", logits, target)
    apart = not 0 <= ignore_index < rows.shape[1]
    if weight is None and reduction == "mean" and apart and not np.count_nonzero(classes.storage == ignore_index):
        # All rows count alike. That is remembered: the kernel refuses a later target that is ignored.
        return average(_cross_entropy(rows, classes, ignore_index=None, label_smoothing=label_smoothing))
    plain_calls.varies()
    weight = _class_weights("cross_entropy", weight, rows.shape[1], rows)
    counted: Tensor | int
    if weight is None:
        losses = _cross_entropy(rows, classes, ignore_index=ignore_index, label_smoothing=label_smoothing)
        counted = classes.size if reduction != "mean" else int(np.count_nonzero(classes.storage != ignore_index))
    else:
        rows, weight = prepared("cross_entropy", rows, weight)
        _check_classes("cross_entropy", classes, rows.shape[1], ignore_index)
        chances = _one_hot(classes, rows, ignore_index, label_smoothing) * weight
        losses = -total(_weighted(chances, log_softmax(rows)), axis=-1)
        counted = _weights_of(weight, classes, ignore_index, rows)[1]
    return reduced("cross_entropy", reshape(losses, target.shape), reduction, counted)


def _counted_cross_entropy(logits: Tensor, target: Tensor, ignore_index: int, label_smoothing: float) -> Tensor:
    """The mean over what counts, counted on the GPU so that nobody waits for the number."""
    rows, classes = _rows("cross_entropy", logits, target)
    losses = _cross_entropy(rows, classes, ignore_index=ignore_index, label_smoothing=label_smoothing)
    return reduced("cross_entropy", losses, "mean", astype(classes != ignore_index, compute_format(losses.dtype)))


def _cross_entropy_of_chances(
    logits: Tensor, target: Tensor, weight: Any, reduction: str, label_smoothing: float
) -> Tensor:
    if target.shape != logits.shape or not logits.ndim:
        raise ShapeError(
            f"cross_entropy: target has shape {target.shape}: probabilities need the logits' shape, {logits.shape}"
        )
    axis = min(logits.ndim - 1, 1)
    classes = logits.shape[axis]
    weight = _class_weights("cross_entropy", weight, classes, logits)
    logits, target, weight = prepared("cross_entropy", logits, target, weight)
    if label_smoothing:
        target = target * (1.0 - label_smoothing) + label_smoothing / max(classes, 1)
    if weight is not None:
        target = target * reshape(weight, (classes, *(1,) * (logits.ndim - axis - 1)))
    losses = -total(_weighted(target, log_softmax(logits, axis=axis)), axis=axis)
    return reduced("cross_entropy", losses, reduction)


def _check_classes(name: str, target: Tensor, classes: int, ignore_index: int) -> None:
    with on_device_of(target.storage):
        spec.validate(name, target.storage, classes, ignore_index)


def _all_count(target: Tensor, classes: int, ignore_index: int) -> bool:
    """Whether every target is a class, and none is ignored: two looks at the host's memory, the common case."""
    positions = target.storage
    if positions.__class__ is not np.ndarray or not positions.size or 0 <= ignore_index < classes:
        return False
    return bool(positions.min() >= 0 and positions.max() < classes)


def _chosen_losses(rows: Tensor, classes: Tensor, shape: tuple[int, ...]) -> Tensor:
    """-rows[i, classes[i]]."""
    return -reshape(take_along_axis(rows, reshape(classes, (-1, 1)), axis=1), shape)


@whole
def nll_loss(
    log_probabilities: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """-log_probabilities[target]: `cross_entropy` without its `log_softmax`; shapes and arguments as there."""
    x, target = as_tensor(log_probabilities), as_tensor(target)
    rows, classes = _rows("nll_loss", x, target)
    weight = _class_weights("nll_loss", weight, rows.shape[1], rows)
    rows, weight = prepared("nll_loss", rows, weight)
    if weight is None and _all_count(classes, rows.shape[1], ignore_index):
        return reduced("nll_loss", _chosen_losses(rows, classes, target.shape), reduction)
    _check_classes("nll_loss", classes, rows.shape[1], ignore_index)
    valid, weights = _weights_of(weight, classes, ignore_index, rows)
    chosen = reshape(take_along_axis(rows, reshape(valid, (-1, 1)), axis=1), (-1,))
    losses = reshape(-_weighted(weights, chosen), target.shape)
    return reduced("nll_loss", losses, reduction, weights)


# Values


def _same_shape(name: str, x: Tensor, target: Tensor) -> None:
    if x.shape != target.shape:
        raise ShapeError(
            f"{name}: shapes differ: {x.shape} and target {target.shape}; reshape or broadcast one of them"
        )


@remembered
@whole
def mse_loss(x: Any, target: Any, reduction: str = "mean") -> Tensor:
    """(x - target)^2, of two tensors of one shape."""
    x, target = prepared("mse_loss", *operands("mse_loss", x, target))
    _same_shape("mse_loss", x, target)
    return reduced("mse_loss", ew.square(x - target), reduction)


@remembered
@whole
def bce_with_logits(
    logits: Any, target: Any, weight: Any = None, pos_weight: Any = None, reduction: str = "mean"
) -> Tensor:
    """Binary cross entropy of sigmoid(logits) and a target from 0 to 1 of the same shape, without overflow.

    `weight` scales the losses, `pos_weight` the part of positive targets; both broadcast.
    """
    x, target = operands("bce_with_logits", logits, target)
    _same_shape("bce_with_logits", x, target)
    weight, pos_weight = (None if w is None else as_tensor(w) for w in (weight, pos_weight))
    x, target, weight, pos_weight = prepared("bce_with_logits", x, target, weight, pos_weight)
    positive = ew.softplus(-x)
    if pos_weight is not None:
        positive = positive * ((pos_weight - 1.0) * target + 1.0)
    losses = (1.0 - target) * x + positive
    return reduced("bce_with_logits", losses if weight is None else losses * weight, reduction)
