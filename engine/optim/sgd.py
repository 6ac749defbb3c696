"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from ulpgrad.errors import ArgumentError
from ulpgrad.kernels.optimizer import spec
from ulpgrad.optim.optimizer import Group, Optimizer, Parameters, State


class SGD(Optimizer):
    """p -= lr * (g + weight_decay * p), with momentum (Polyak 1964) and Nesterov's look ahead as torch has them."""

    op = spec.sgd_step
    state_names = ("momentum_buffer",)

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov
        )  # fmt: skip

    def check(self, group: Group) -> None:
        super().check(group)
        if group["nesterov"] and (not group["momentum"] or group["dampening"]):
            raise ArgumentError("SGD: nesterov needs a momentum above 0 and no dampening")

    def kept(self, group: Group) -> tuple[bool, ...]:
        return (group["momentum"] != 0,)

    def arguments(self, group: Group, state: State) -> dict[str, Any]:
        if not group["momentum"]:
            state.step = 0  # counts the steps that are in the buffer
        return {
            "lr": group["lr"],
            "momentum": group["momentum"],
            "dampening": group["dampening"],
            "nesterov": group["nesterov"],
            "weight_decay": group["weight_decay"],
            "first": state.step == 1,
        }
