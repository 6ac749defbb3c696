"""Gradients of other libraries: their own backward pass alone. The forward pass behind it is made ready before, and not timed.

Its operands are those of the forward op's standard problem: shapes draws them, and what a gradient op is given, in one order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ulpgrad.bench.suite import functions
from ulpgrad.bench.suite.contenders import Task
from ulpgrad.bench.suite.prepared import Give, Makers, Prepared, given
from ulpgrad.kernels import registry

# Gradients of all operands that stand there, in the order in which our kernel gives them.
BACKWARD: dict[str, tuple[str, tuple[int, ...]]] = {
    "adaptive_avg_pool2d_gradient": ("adaptive_avg_pool2d", (0,)),
    "attention_gradient": ("attention", (0, 1, 2)),
    "avg_pool2d_gradient": ("avg_pool2d", (0,)),
    "batch_norm_gradient": ("batch_norm", (0, 1, 2)),
    "conv2d_input_gradient": ("conv2d", (0,)),
    "conv2d_weight_gradient": ("conv2d", (1,)),
    "conv3d_input_gradient": ("conv3d", (0,)),
    "conv3d_weight_gradient": ("conv3d", (1,)),
    "cross_entropy_gradient": ("cross_entropy", (0,)),
    "embedding_gradient": ("embedding", (0,)),
    "layer_norm_gradient": ("layer_norm", (0, 1, 2)),
    "max_pool2d_gradient": ("max_pool2d", (0,)),
    "rms_norm_gradient": ("rms_norm", (0, 1)),
}


def first(returned: Any) -> Any:
    """The result that a gradient is of."""
    return returned[0] if isinstance(returned, (tuple, list)) else returned


def _torch(forward: str, wanted: tuple[int, ...], torch: Any, task: Task) -> Prepared:
    function, problem = functions.torch(torch, forward, registry.find(forward).family), task.forward(forward)
    assert function is not None

    def operands(give: Give) -> tuple[Any, ...]:
        made = given(problem, give)
        asked = [made[i].requires_grad_() for i in wanted]
        y = first(function(*made, **problem.params))
        return y, asked, given(task.problem, give)[0]

    return Prepared(operands, lambda y, asked, g: torch.autograd.grad(y, asked, g, retain_graph=True))


def _jax(forward: str, wanted: tuple[int, ...], jax: Any, task: Task) -> Prepared:
    function = functions.jax(jax, forward, registry.find(forward).family)
    assert function is not None
    return through_jax(jax, partial(function, **task.forward(forward).params), forward, wanted, task)


def through_jax(jax: Any, function: Callable[..., Any], forward: str, wanted: tuple[int, ...], task: Task) -> Prepared:
    """The backward pass of a function of the forward op's operands, compiled; what it needs of them is its operand."""
    problem = task.forward(forward)

    def forwards(*made: Any) -> Any:
        def of(*asked: Any) -> Any:
            mixed = list(made)
            for i, x in zip(wanted, asked, strict=True):
                mixed[i] = x
            return first(function(*mixed))

        return jax.vjp(of, *[made[i] for i in wanted])[1]

    prepare, backwards = jax.jit(forwards), jax.jit(lambda pull, g: pull(g))

    def operands(give: Give) -> tuple[Any, ...]:
        return prepare(*given(problem, give)), given(task.problem, give)[0]

    return Prepared(operands, lambda pull, g: jax.block_until_ready(backwards(pull, g)))


def _makers(maker: Callable[..., Prepared], names: set[str]) -> Makers:
    return {name: partial(maker, *rule) for name, rule in BACKWARD.items() if name in names}


TORCH: Makers = _makers(_torch, set(BACKWARD) - set(functions.TORCH))
JAX: Makers = _makers(_jax, {name for name, (forward, _) in BACKWARD.items() if forward in functions.JAX})

__all__ = ["BACKWARD", "JAX", "TORCH", "first", "through_jax"]
