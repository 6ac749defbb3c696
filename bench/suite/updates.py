"""torch's optimizers, each beside our step of the same formula: a parameter, its gradient, its state, written in place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ulpgrad.bench.suite.contenders import Task
from ulpgrad.bench.suite.prepared import Give, Makers, Prepared, given

Params = dict[str, Any]
Make = Callable[[Any, list[Any], Params], Any]


def _sgd(torch: Any, parameters: list[Any], p: Params) -> Any:
    named = ("lr", "momentum", "dampening", "weight_decay", "nesterov")
    is_wide = parameters[0].element_size() > 2  # in 16 bits torch 2.13's fused one is off by a tenth
    return torch.optim.SGD(parameters, **{name: p[name] for name in named}, fused=is_wide)


def _adam(torch: Any, parameters: list[Any], p: Params) -> Any:
    kind = torch.optim.AdamW if p["decoupled"] else torch.optim.Adam
    named = ("lr", "eps", "weight_decay")
    return kind(parameters, betas=(p["beta1"], p["beta2"]), **{name: p[name] for name in named}, fused=True)


def _adagrad(torch: Any, parameters: list[Any], p: Params) -> Any:
    return torch.optim.Adagrad(parameters, **p, fused=True)


def _rmsprop(torch: Any, parameters: list[Any], p: Params) -> Any:
    return torch.optim.RMSprop(parameters, **p, foreach=True)  # which has no fused one


def _step(make: Make, states: tuple[str, ...], torch: Any, task: Task) -> Prepared:
    """A step with the state called as in torch, in the order of our operands behind parameter and gradient."""

    def operands(give: Give) -> tuple[Any, ...]:
        parameter, gradient, *kept, _ = given(task.problem, give)
        parameter.requires_grad_().grad = gradient
        optimizer = make(torch, [parameter], task.params)
        state = optimizer.state[parameter]
        state["step"] = torch.tensor(float(task.params.get("step", 1) - 1))
        state.update({name: value for name, value in zip(states, kept, strict=True) if value is not None})
        return optimizer, parameter

    def call(optimizer: Any, parameter: Any) -> Any:
        optimizer.step()
        return optimizer, parameter

    def results(returned: Any) -> tuple[Any, ...]:
        optimizer, parameter = returned
        state = optimizer.state[parameter]
        return parameter.detach(), *(state[name] for name in states if state.get(name) is not None)

    return Prepared(operands, call, results)


TORCH: Makers = {
    "sgd_step": partial(_step, _sgd, ("momentum_buffer",)),
    "adam_step": partial(_step, _adam, ("exp_avg", "exp_avg_sq")),
    "adagrad_step": partial(_step, _adagrad, ("sum",)),
    "rmsprop_step": partial(_step, _rmsprop, ("square_avg", "momentum_buffer")),
}

__all__ = ["TORCH"]
