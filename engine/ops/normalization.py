"""Layer, RMS and batch normalization. The fused kernels keep mean and 1 / deviation for one fused gradient; second
derivatives go through the formulas."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from ulpgrad.autograd import no_grad
from ulpgrad.differentiable import Primitive, prepared, whole
from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.formats import Array, Float, float64
from ulpgrad.formats.promotion import result_format
from ulpgrad.kernels.norm import running, spec
from ulpgrad.ops import elementwise as ew
from ulpgrad.ops.common import as_tensor, normalize_shape
from ulpgrad.ops.creation import astype
from ulpgrad.ops.manipulation import reshape
from ulpgrad.ops.reduction import mean as average, var as variance
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

__all__ = ["batch_norm", "layer_norm", "rms_norm"]


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    y = x if weight is None else x * weight
    return y if bias is None else y + bias


def _layer_norm_formula(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    centred = x - average(x, axis=-1, keepdims=True)
    return _scaled(centred / ew.sqrt(average(centred * centred, axis=-1, keepdims=True) + eps), weight, bias)


def _rms_norm_formula(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    return _scaled(x / ew.sqrt(average(x * x, axis=-1, keepdims=True) + eps), weight, None)


def _batch_norm_formula(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    centred = x - average(x, axis=(0, 2), keepdims=True)
    normal = centred / ew.sqrt(average(centred * centred, axis=(0, 2), keepdims=True) + eps)
    return _scaled(normal, *(None if t is None else reshape(t, (-1, 1)) for t in (weight, bias)))


_layer_norm_gradient = Primitive(spec.layer_norm_gradient, "g0 x weight mean rstd", "dx dweight dbias")
_layer_norm = Primitive(
    spec.layer_norm,
    "x weight bias",
    "y mean rstd",
    joint=lambda g, x, weight, mean, rstd: _layer_norm_gradient.every(g, x, weight, mean, rstd),
    composite=_layer_norm_formula,
)
_rms_norm_gradient = Primitive(spec.rms_norm_gradient, "g0 x weight rstd", "dx dweight")
_rms_norm = Primitive(
    spec.rms_norm,
    "x weight",
    "y rstd",
    joint=lambda g, x, weight, rstd: _rms_norm_gradient.every(g, x, weight, rstd),
    composite=_rms_norm_formula,
)
_batch_norm_gradient = Primitive(spec.batch_norm_gradient, "g0 x weight mean rstd", "dx dweight dbias")
_batch_norm = Primitive(
    spec.batch_norm,
    "x weight bias",
    "y mean rstd",
    joint=lambda g, x, weight, mean, rstd: _batch_norm_gradient.every(g, x, weight, mean, rstd),
    composite=_batch_norm_formula,
)


def _over_last_axes(
    name: str,
    x: Any,
    normalized_shape: int | Sequence[int],
    parameters: tuple[Any, ...],
    run: Callable[..., Tensor],
) -> Tensor:
    """Run with the normalized axes as one, the last."""
    x, shape = as_tensor(x), normalize_shape(name, normalized_shape)
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(f"{name}: x has shape {x.shape}: its last axes must be normalized_shape {shape}")
    given = [None if p is None else as_tensor(p) for p in parameters]
    for what, p in zip(("weight", "bias"), given, strict=False):
        if p is not None and p.shape != shape:
            raise ShapeError(f"{name}: {what} has shape {p.shape}: expected normalized_shape {shape}")
    if len(shape) == 1:
        return run(x, *given)
    flat = [None if p is None else reshape(p, (-1,)) for p in given]
    return reshape(run(reshape(x, (*x.shape[: -len(shape)], math.prod(shape))), *flat), x.shape)


@remembered
def layer_norm(
    x: Any, normalized_shape: int | Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axes, whose shape is `normalized_shape`.

    The variance is the biased one; weight and bias have the normalized shape. Source: Ba et al. 2016.
    """
    return _over_last_axes(
        "layer_norm", x, normalized_shape, (weight, bias), lambda x, w, b: _layer_norm(x, w, b, eps=float(eps))
    )


@remembered
def rms_norm(x: Any, normalized_shape: int | Sequence[int], weight: Any = None, eps: float | None = None) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axes; `eps` is that of x's format unless given.

    Source: Zhang and Sennrich 2019.
    """
    x = as_tensor(x)
    if not isinstance(x.dtype, Float):
        raise FormatError(f"rms_norm: expected a floating format, got {x.dtype.name}")
    small = x.dtype.eps if eps is None else float(eps)
    return _over_last_axes("rms_norm", x, normalized_shape, (weight,), lambda x, w: _rms_norm(x, w, eps=small))


@whole
def batch_norm(
    x: Any,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias per channel (axis 1) of (n, c) or (n, c, ...).

    In training, with the batch's own statistics (biased variance); running_mean and running_var, if given, then move in
    place by `momentum` towards them (unbiased variance). Otherwise with the running statistics.
    Raises ShapeError for a batch that has only one value per channel to train on. Source: Ioffe and Szegedy 2015.
    """
    x = as_tensor(x)
    if x.ndim < 2:
        raise ShapeError(f"batch_norm: x has shape {x.shape}: expected (batch, channels, ...)")
    weight, bias = (None if p is None else as_tensor(p) for p in (weight, bias))
    named = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for what, p in named.items():
        if p is not None and p.shape != x.shape[1:2]:
            raise ShapeError(f"batch_norm: {what} has shape {p.shape}: expected {x.shape[1:2]}, one value per channel")
    if not training:
        if running_mean is None or running_var is None:
            raise ArgumentError("batch_norm: running_mean and running_var are needed out of training")
        return _with_running_statistics(x, running_mean, running_var, weight, bias, eps)
    count = x.size // max(x.shape[1], 1)
    if count == 1:
        raise ShapeError(f"batch_norm: x {x.shape} has one value per channel: training needs at least two")
    y, mean, rstd = _with_own_statistics(x, weight, bias, float(eps))
    if x.device.type == "cpu":
        _move(x, running_mean, running_var, mean.storage, rstd.storage, float(eps), momentum, count / (count - 1))
    else:
        with no_grad():
            if running_mean is not None:
                _move_on_gpu(running_mean, mean.detach(), momentum)
            if running_var is not None:
                axes = (0, *range(2, x.ndim))
                _move_on_gpu(running_var, variance(astype(x.detach(), float64), axis=axes, correction=1.0), momentum)
    return y


@remembered
def _with_own_statistics(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, ...]:
    """The normalized batch, and its mean and 1 / deviation per channel."""
    y, mean, rstd = _batch_norm.every(reshape(x, (*x.shape[:2], -1)), weight, bias, eps=eps)
    return reshape(y, x.shape), mean, rstd


def _move(
    x: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    to_mean: Array,
    rstd: Array,
    eps: float,
    by: float,
    unbiased: float,
) -> None:
    """Move running statistics, where there are any, in place."""
    both = (None if mean is None else mean.storage, None if var is None else var.storage)
    if not running.moved(both, to_mean, rstd, eps, by, unbiased):
        if mean is not None:
            running.move(mean.storage, mean.dtype, to_mean, by)
        if var is not None:
            running.move(
                var.storage, var.dtype, running.variance(x.storage, x.dtype, to_mean, rstd, eps) * unbiased, by
            )
    for t in (mean, var):
        if t is not None:
            t._written()


def _move_on_gpu(running: Tensor, towards: Tensor, momentum: float) -> None:
    """The same by ops, so that nobody waits for values."""
    moved = astype(running, float64) * (1 - momentum) + astype(towards, float64) * momentum
    running[...] = moved


def scale_and_shift(
    mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """What batch normalization in inference multiplies each channel by, and adds to it."""
    scale = ew.reciprocal(ew.sqrt(variance + eps))
    scale = scale if weight is None else scale * weight
    return scale, -mean * scale if bias is None else bias - mean * scale


@remembered
def _with_running_statistics(
    x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """One multiplication and one addition per value."""
    x, mean, variance, weight, bias = prepared("batch_norm", x, mean, variance, weight, bias)
    form = result_format(*(t.dtype for t in (x, weight, bias) if t is not None))
    scale, shift = scale_and_shift(mean, variance, weight, bias, eps)
    wide = (-1, *(1,) * (x.ndim - 2))
    y = x * reshape(scale, wide) + reshape(shift, wide)
    return astype(y, form, copy=False)
