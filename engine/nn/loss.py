"""Losses as modules. Their weights are buffers: saved and converted with the model."""

from __future__ import annotations

from typing import Any

from ulpgrad import ops
from ulpgrad.nn.module import Module
from ulpgrad.tensor import Tensor


class CrossEntropyLoss(Module):
    """`ulpgrad.cross_entropy` of logits and targets."""

    weight: Tensor | None

    def __init__(
        self,
        weight: Any = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        self.register_buffer("weight", None if weight is None else ops.as_tensor(weight))
        self.ignore_index, self.reduction, self.label_smoothing = ignore_index, reduction, label_smoothing

    def forward(self, logits: Any, target: Any) -> Tensor:
        return ops.cross_entropy(
            logits, target, self.weight, self.ignore_index, self.reduction, self.label_smoothing
        )  # fmt: skip


class NLLLoss(Module):
    """`ulpgrad.nll_loss` of log-probabilities and class indices."""

    weight: Tensor | None

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        self.register_buffer("weight", None if weight is None else ops.as_tensor(weight))
        self.ignore_index, self.reduction = ignore_index, reduction

    def forward(self, log_probabilities: Any, target: Any) -> Tensor:
        return ops.nll_loss(log_probabilities, target, self.weight, self.ignore_index, self.reduction)


class MSELoss(Module):
    """`ulpgrad.mse_loss`."""

    def __init__(self, reduction: str = "mean") -> None:
        self.reduction = reduction

    def forward(self, x: Any, target: Any) -> Tensor:
        return ops.mse_loss(x, target, self.reduction)


class BCEWithLogitsLoss(Module):
    """`ulpgrad.bce_with_logits`."""

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None) -> None:
        self.register_buffer("weight", None if weight is None else ops.as_tensor(weight))
        self.register_buffer("pos_weight", None if pos_weight is None else ops.as_tensor(pos_weight))
        self.reduction = reduction

    def forward(self, logits: Any, target: Any) -> Tensor:
        return ops.bce_with_logits(logits, target, self.weight, self.pos_weight, self.reduction)
