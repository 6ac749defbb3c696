"""Adam and AdamW."""

from __future__ import annotations

from typing import Any

from ulpgrad.errors import ArgumentError
from ulpgrad.kernels.optimizer import spec
from ulpgrad.optim.optimizer import Group, Optimizer, Parameters, State


class Adam(Optimizer):
    """Steps by the mean of gradients over the root of the mean of their squares, both decaying (Kingma and Ba 2015).

    `weight_decay` is added to the gradient.
    """

    op = spec.adam_step
    state_names = ("exp_avg", "exp_avg_sq")
    decoupled = False

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)

    def check(self, group: Group) -> None:
        super().check(group)
        if not all(0 <= beta < 1 for beta in group["betas"]):
            raise ArgumentError(
                f"{type(self).__name__}: betas={group['betas']!r}: expected two numbers from 0 to below 1"
            )

    def arguments(self, group: Group, state: State) -> dict[str, Any]:
        beta1, beta2 = group["betas"]
        return {
            "lr": group["lr"],
            "beta1": beta1,
            "beta2": beta2,
            "eps": group["eps"],
            "weight_decay": group["weight_decay"],
            "decoupled": self.decoupled,
            "step": state.step,
        }


class AdamW(Adam):
    """Adam with weight decay apart from the gradient: p -= lr * weight_decay * p (Loshchilov and Hutter 2019)."""

    decoupled = True

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
