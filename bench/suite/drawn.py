"""Random numbers of other libraries: other ones than ours, so that they are held to their distribution, not to a reference."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ulpgrad.bench.suite.contenders import Task
from ulpgrad.bench.suite.prepared import Give, Makers, Prepared, given
from ulpgrad.errors import KernelError
from ulpgrad.formats import Array, Float

SEED = 1
SURE = 6.0  # standard deviations that a mean of independent draws may be off by
WORDS = 2.0**32
STAY = 20  # numbers of a long permutation that are where they were: one is to be expected

Call = Callable[..., Any]


def mean_is(name: str, values: Array, mean: float, deviation: float, step: float = 0.0) -> None:
    """KernelError unless the mean of draws with that standard deviation, whole steps of their format, is where it should be."""
    found, within = float(np.mean(values, dtype=np.float64)), SURE * deviation / math.sqrt(max(values.size, 1)) + step
    if not abs(found - mean) <= within:
        raise KernelError(f"the mean of {name} is {found:.6g}: expected {mean:g} within {within:.2g}")


def uniform(task: Task, values: Array) -> None:
    """KernelError unless values lie in [0, 1) evenly, 1 too where a format rounds up to it; words are counted in 2^32."""
    words = task.op.name == "random_bits"
    shares = np.mod(values, WORDS) / WORDS if words else values
    if shares.size and not (shares.min() >= 0 and shares.max() <= 1):
        raise KernelError(f"uniform numbers from {shares.min()} to {shares.max()}: expected 0 to 1")
    mean_is("uniform numbers", shares, 0.5, math.sqrt(1 / 12), 0.0 if words else _step(task))


def normal(task: Task, values: Array) -> None:
    """KernelError unless mean and variance are those of the standard normal distribution."""
    mean_is("normal numbers", values, 0.0, 1.0, _step(task))
    mean_is("squares of normal numbers", np.square(values), 1.0, math.sqrt(2), _step(task))


def permutation(task: Task, values: Array) -> None:
    """KernelError unless each number is there once, and few are where they were."""
    where = np.arange(values.size)
    if not np.array_equal(np.sort(values), where) or (values.size > 10 * STAY and np.sum(values == where) > STAY):
        raise KernelError(f"{values.size} numbers are no random permutation")


def dropped(task: Task, values: Array) -> None:
    """KernelError unless the right share is zero, and the rest is scaled."""
    p, x = task.params["p"], np.asarray(task.exact[0])
    kept = values != 0
    mean_is("what dropout keeps", kept, np.mean(x != 0) * (1 - p), math.sqrt(p * (1 - p)))
    if not np.allclose(values[kept], x[kept] / (1 - p), rtol=4 * _step(task)):
        raise KernelError("what dropout keeps is not x / (1 - p)")


def _step(task: Task) -> float:
    """Of the format of the numbers, just below 1."""
    (form,) = task.formats
    return 2.0 ** -(form.mantissa_bits + 1) if isinstance(form, Float) else 0.0


CHECKS: dict[str, Callable[[Task, Array], None]] = {
    "random_bits": uniform, "random_uniform": uniform, "random_normal": normal, "random_permutation": permutation,
    "dropout": dropped,
}  # fmt: skip


def _numpy(np: Any, task: Task) -> Call:
    draw, p = np.random.default_rng(SEED), task.params
    size, dtype = p.get("size"), p["dtype"].storage if "dtype" in p else None
    calls: dict[str, Call] = {
        "random_bits": lambda: draw.integers(0, 1 << 32, size, np.uint32),
        "random_uniform": lambda: draw.random(size, dtype),
        "random_normal": lambda: draw.standard_normal(size, dtype),
        "random_permutation": lambda: draw.permutation(size),
        "dropout": lambda x: np.where(draw.random(x.shape, np.float32) < p["p"], 0, x * x.dtype.type(1 / (1 - p["p"]))),
    }
    return calls[task.op.name]


def _torch(torch: Any, task: Task) -> Call:
    p = task.params
    size, dtype = p.get("size"), getattr(torch, p["dtype"].name) if "dtype" in p else None
    calls: dict[str, Call] = {
        "random_bits": lambda: torch.randint(-(1 << 31), 1 << 31, (size,), dtype=torch.int32),
        "random_uniform": lambda: torch.rand(size, dtype=dtype),
        "random_normal": lambda: torch.randn(size, dtype=dtype),
        "random_permutation": lambda: torch.randperm(size),
        "dropout": lambda x: torch.nn.functional.dropout(x, p["p"], training=True),
    }
    return calls[task.op.name]


def _jax(jax: Any, task: Task) -> Call:
    p, draw = task.params, jax.random
    size, dtype = (p.get("size"),), getattr(jax.numpy, p["dtype"].name) if "dtype" in p else None
    calls: dict[str, Call] = {
        "random_bits": lambda key: draw.bits(key, size, jax.numpy.uint32),
        "random_uniform": lambda key: draw.uniform(key, size, dtype),
        "random_normal": lambda key: draw.normal(key, size, dtype),
        "random_permutation": lambda key: draw.permutation(key, p["size"]),
        "dropout": lambda key, x: jax.numpy.where(draw.bernoulli(key, 1 - p["p"], x.shape), x / (1 - p["p"]), 0),
    }
    run, key = jax.jit(calls[task.op.name]), draw.key(SEED)
    return lambda *x: jax.block_until_ready(run(key, *x))


def _prepared(make: Callable[[Any, Task], Call], library: Any, task: Task) -> Prepared:
    def operands(give: Give) -> tuple[Any, ...]:
        return given(task.problem, give)

    return Prepared(operands, make(library, task), check=partial(CHECKS[task.op.name], task))


NUMPY: Makers = {name: partial(_prepared, _numpy) for name in CHECKS}
TORCH: Makers = {name: partial(_prepared, _torch) for name in CHECKS}
JAX: Makers = {name: partial(_prepared, _jax) for name in CHECKS}

__all__ = ["CHECKS", "JAX", "NUMPY", "TORCH", "dropped", "mean_is", "normal", "permutation", "uniform"]
