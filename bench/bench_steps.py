"""Training steps of the sizes that `ulpgrad bench peers` sets beside torch: dense, convolutional and transformer layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import ulpgrad as ug
from ulpgrad.bench.peers.steps import cnn, mlp, transformer


@pytest.mark.parametrize("make", [mlp, cnn, transformer])
def test_training_step(benchmark: Any, make: Callable[[Any], Callable[[], Any]]) -> None:
    step = make(ug)
    benchmark.group = "training step"
    benchmark.pedantic(step, rounds=20, iterations=1, warmup_rounds=3)


@pytest.mark.parametrize("fused", [False, True])
def test_chain_of_elementwise_ops(benchmark: Any, fused: bool) -> None:
    """Forward and backward of a gate on 4 million values, op by op and as one op."""

    def gate(x: Any, y: Any) -> Any:
        return ug.tanh(x) * ug.sigmoid(y) + 0.5 * x

    function = ug.fused(gate) if fused else gate
    x, y = (ug.randn((1 << 22,)).requires_grad_() for _ in range(2))
    g = ug.ones((1 << 22,))

    def step() -> None:
        x.grad = y.grad = None
        function(x, y).backward(g)

    benchmark.group = "chain of elementwise ops"
    benchmark.pedantic(step, rounds=10, iterations=1, warmup_rounds=2)
