"""A product of 512 x 512 matrices in chosen accumulators: each rung, beside a loop in NumPy and the plain float32 product.

The loop is what one writes by hand: all results side by side, one term after the other, each sum rounded by `Float.encode`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.bench.timing import SLOW, seconds
from ulpgrad.formats import Array, Float, as_format
from ulpgrad.kernels import registry
from ulpgrad.kernels.accumulate import spec

SIZE = 512
RNG = np.random.default_rng(0)
A, B = (RNG.standard_normal((SIZE, SIZE)).astype(np.float32) for _ in range(2))
ACCUMULATORS = {
    "1-6-9": ug.Accumulate("e6m9"),
    "1-6-9 in chunks": ug.Accumulate("e6m9", 64),
    "1-6-9 stochastic": ug.Accumulate("e6m9", rounding="stochastic"),
    "bfloat16": ug.Accumulate("bfloat16"),
    "float32": ug.Accumulate("float32"),
}
RUNGS = [rung for rung in registry.ladder(spec.accumulate_matmul) if rung.rank and rung.unavailable() is None]


def numpy_loop(a: Array = A, b: Array = B) -> Array:
    """The product in a 1-6-9 float without chunks, as NumPy does it (float64 sums: rounded twice)."""
    form = as_format("e6m9")
    assert isinstance(form, Float)
    a, b = a.astype(np.float64), b.astype(np.float64)
    total: Array = np.zeros((a.shape[0], b.shape[1]))
    for t in range(a.shape[1]):
        total = form.exact(form.encode(total + np.multiply.outer(a[:, t], b[t])))
    return total


def timed(benchmark: Any, call: Callable[[], Any]) -> None:
    warm = min(seconds(call), seconds(call)) if seconds(call) < SLOW else SLOW
    benchmark.pedantic(call, rounds=1 if warm >= SLOW else 10, iterations=1)


def test_numpy_loop(benchmark: Any) -> None:
    benchmark.group = "1-6-9"
    timed(benchmark, numpy_loop)


@pytest.mark.parametrize("rung", RUNGS, ids=lambda rung: rung.name)
@pytest.mark.parametrize("name", list(ACCUMULATORS))
def test_accumulator(benchmark: Any, name: str, rung: Any) -> None:
    benchmark.group = name
    a, b, how = ug.asarray(A), ug.asarray(B), ACCUMULATORS[name]

    def call() -> ug.Tensor:
        with ug.use(accumulate_matmul=rung.name):
            return ug.matmul(a, b, accumulate=how)

    timed(benchmark, call)


def test_plain(benchmark: Any) -> None:
    benchmark.group = "float32, plain"
    a, b = ug.asarray(A), ug.asarray(B)
    timed(benchmark, lambda: a @ b)
