"""Recurrent layers of other libraries on the same problem as our kernels, which are given the inputs' share of the gates.

torch makes that share itself. The standard problem has one feature a step, and powers of two for its weights: so the share can be
taken apart exactly, and torch's product of inputs, a column by a row, costs next to nothing. JAX has the loop as one writes it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ulpgrad.bench.suite import gradients
from ulpgrad.bench.suite.contenders import Task
from ulpgrad.bench.suite.prepared import Give, Makers, Prepared, given

NAMES = ("lstm", "gru", "rnn")
GRADIENT = "_gradient"


def _layer(torch: Any, name: str, params: dict[str, Any]) -> Any:
    """torch's function of one layer in one direction: of (features, weights of features, weights, bias, states)."""
    run = getattr(torch, f"rnn_{params['nonlinearity']}" if name == "rnn" else name)

    def layer(u: Any, of_inputs: Any, weight: Any, bias: Any, *states: Any) -> Any:
        first = tuple(s[None] for s in states)
        weights = [of_inputs, weight, torch.zeros_like(bias), bias]
        return run(
            u, first if name == "lstm" else first[0], weights, True, 1, 0.0, torch.is_grad_enabled(), False, False
        )

    return layer


def _apart(x: Any) -> tuple[Any, Any]:
    """The share of the gates [steps, rows, gates] as features [steps, rows, 1] and their weights [gates, 1]."""
    return x[..., :1].contiguous(), (x[0, 0] / x[0, 0, 0])[:, None].contiguous()


def _torch(torch: Any, task: Task) -> Prepared:
    name = task.op.name
    layer = _layer(torch, name, task.params)

    def operands(give: Give) -> tuple[Any, ...]:
        x, *rest = given(task.problem, give)
        return (*_apart(x), *rest)

    def call(*made: Any) -> Any:
        with torch.no_grad():
            return layer(*made)

    def results(returned: Any) -> tuple[Any, ...]:
        return (torch.cat([returned[0], returned[2]]) if name == "lstm" else returned[0],)

    return Prepared(operands, call, results)


def _torch_gradient(torch: Any, task: Task) -> Prepared:
    name = task.op.name.removesuffix(GRADIENT)
    problem, layer = task.forward(name), _layer(torch, name, task.params)

    def operands(give: Give) -> tuple[Any, ...]:
        x, *rest = given(problem, give)
        u, of_inputs = _apart(x)
        asked = [t.requires_grad_() for t in (u, *rest)]
        returned = layer(u, of_inputs, *rest)
        g, steps = given(task.problem, give)[0], x.shape[0]
        if name == "lstm":
            return (returned[0], returned[2]), asked, (g[:steps], g[steps:])
        return (returned[0],), asked, (g,)

    def results(returned: Any) -> tuple[Any, ...]:
        return None, *returned[1:]  # the gradient of the features, where ours is that of their share of the gates

    return Prepared(operands, lambda y, asked, g: torch.autograd.grad(y, asked, g, retain_graph=True), results)


def _loop(jax: Any, name: str, params: dict[str, Any]) -> Any:
    """A layer in JAX: states after each step, and the last cell behind them."""
    np, nn = jax.numpy, jax.nn

    def run(x: Any, weight: Any, bias: Any, *first: Any) -> Any:
        def lstm(state: Any, x: Any) -> Any:
            h, c = state
            i, f, g, o = np.split(x + h @ weight.T + bias, 4, axis=1)
            c = nn.sigmoid(f) * c + nn.sigmoid(i) * np.tanh(g)
            h = nn.sigmoid(o) * np.tanh(c)
            return (h, c), h

        def gru(state: Any, x: Any) -> Any:
            (h,), (r, z, new), (own_r, own_z, own) = (
                state,
                np.split(x, 3, 1),
                np.split(state[0] @ weight.T + bias, 3, 1),
            )
            z = nn.sigmoid(z + own_z)
            h = (1 - z) * np.tanh(new + nn.sigmoid(r + own_r) * own) + z * h
            return (h,), h

        def rnn(state: Any, x: Any) -> Any:
            h = getattr(nn, params["nonlinearity"])(x + state[0] @ weight.T + bias)
            return (h,), h

        last, y = jax.lax.scan({"lstm": lstm, "gru": gru, "rnn": rnn}[name], first, x)
        return np.concatenate([y, last[1][None]]) if name == "lstm" else y

    return run


def _jax(jax: Any, task: Task) -> Prepared:
    run = jax.jit(_loop(jax, task.op.name, task.params))
    return Prepared(partial(given, task.problem), lambda *made: jax.block_until_ready(run(*made)))


def _jax_gradient(jax: Any, task: Task) -> Prepared:
    name = task.op.name.removesuffix(GRADIENT)
    return gradients.through_jax(
        jax, _loop(jax, name, task.params), name, tuple(range(len(task.forward(name).arrays))), task
    )


TORCH: Makers = dict.fromkeys(NAMES, _torch) | {name + GRADIENT: _torch_gradient for name in NAMES}
JAX: Makers = dict.fromkeys(NAMES, _jax) | {name + GRADIENT: _jax_gradient for name in NAMES}

__all__ = ["JAX", "TORCH"]
