"""Normalization and dropout layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import int64
from ulpgrad.nn.module import Module
from ulpgrad.nn.parameter import Parameter
from ulpgrad.ops import batch_norm, dropout, layer_norm, ones, rms_norm, zeros
from ulpgrad.ops.common import normalize_shape
from ulpgrad.ops.normalization import scale_and_shift
from ulpgrad.tensor import Tensor


class _BatchNorm(Module):
    """Batch normalization with running statistics as buffers; `momentum=None` averages all batches alike."""

    axes: tuple[int, ...] = ()
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: Any = None,
    ) -> None:
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.track_running_stats = track_running_stats
        self.weight = Parameter(ones(num_features, dtype=dtype)) if affine else None
        self.bias = Parameter(zeros(num_features, dtype=dtype)) if affine else None
        self.register_buffer("running_mean", zeros(num_features, dtype=dtype) if track_running_stats else None)
        self.register_buffer("running_var", ones(num_features, dtype=dtype) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", zeros((), dtype=int64) if track_running_stats else None)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim not in self.axes or x.shape[1] != self.num_features:
            raise ShapeError(
                f"{type(self).__name__}({self.num_features}): got shape {x.shape}, expected {self.num_features} "
                f"channels on axis 1 of {' or '.join(map(str, self.axes))}"
            )
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked[...] = self.num_batches_tracked + 1
            if self.momentum is None:
                momentum = 1.0 / self.num_batches_tracked.item()
        on_batch = self.training or self.running_mean is None
        return batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, on_batch, momentum, self.eps
        )  # fmt: skip

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """What inference multiplies each channel by, and what it adds: (num_features,) each. ArgumentError without running
        statistics."""
        if self.running_mean is None or self.running_var is None:
            raise ArgumentError(
                f"{type(self).__name__}({self.num_features}) keeps no running statistics: expected track_running_stats=True"
            )
        return scale_and_shift(self.running_mean, self.running_var, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class BatchNorm1d(_BatchNorm):
    """Batch normalization of (n, c) or (n, c, l), per channel. See `ulpgrad.batch_norm`."""

    axes = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalization of (n, c, h, w), per channel. See `ulpgrad.batch_norm`."""

    axes = (4,)


class LayerNorm(Module):
    """Layer normalization over the last axes. See `ulpgrad.layer_norm`."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: Any = None,
    ) -> None:
        self.normalized_shape, self.eps = normalize_shape("LayerNorm", normalized_shape), eps
        self.weight = Parameter(ones(self.normalized_shape, dtype=dtype)) if elementwise_affine else None
        self.bias = Parameter(zeros(self.normalized_shape, dtype=dtype)) if elementwise_affine and bias else None

    def forward(self, x: Any) -> Tensor:
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class RMSNorm(Module):
    """Division by the root of the mean square over the last axes. See `ulpgrad.rms_norm`."""

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        dtype: Any = None,
    ) -> None:
        self.normalized_shape, self.eps = normalize_shape("RMSNorm", normalized_shape), eps
        self.weight = Parameter(ones(self.normalized_shape, dtype=dtype)) if elementwise_affine else None

    def forward(self, x: Any) -> Tensor:
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class Dropout(Module):
    """In training, zeros with probability p. See `ulpgrad.dropout`."""

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ArgumentError(f"Dropout: p={p!r}: expected a probability from 0 to 1")
        self.p = p

    def forward(self, x: Any) -> Tensor:
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"
