"""Optimizers that divide the gradient by the size it had so far."""

from __future__ import annotations

from typing import Any

from ulpgrad.errors import ArgumentError
from ulpgrad.kernels.optimizer import spec
from ulpgrad.optim.optimizer import Group, Optimizer, Parameters, State


class Adagrad(Optimizer):
    """p -= lr * g / (sqrt(sum of g^2) + eps) (Duchi et al. 2011)."""

    op = spec.adagrad_step
    state_names = ("sum",)

    def __init__(self, params: Parameters, lr: float = 1e-2, weight_decay: float = 0.0, eps: float = 1e-10) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, eps=eps)

    def arguments(self, group: Group, state: State) -> dict[str, Any]:
        return {"lr": group["lr"], "eps": group["eps"], "weight_decay": group["weight_decay"]}


class RMSprop(Optimizer):
    """p -= lr * g / (sqrt(decaying mean of g^2) + eps), with momentum on the whole step (Hinton 2012)."""

    op = spec.rmsprop_step
    state_names = ("square_avg", "momentum_buffer")

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum)

    def check(self, group: Group) -> None:
        super().check(group)
        if not 0 <= group["alpha"] < 1:
            raise ArgumentError(f"RMSprop: alpha={group['alpha']!r}: expected a number from 0 to below 1")

    def kept(self, group: Group) -> tuple[bool, ...]:
        return True, group["momentum"] != 0

    def arguments(self, group: Group, state: State) -> dict[str, Any]:
        return {key: group[key] for key in ("lr", "alpha", "eps", "momentum", "weight_decay")}
