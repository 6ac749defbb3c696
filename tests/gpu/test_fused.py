"""Fused functions of tensors on a GPU: one kernel forward, one backward, and the CPU's results and gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.dispatch import calls_of
from ulpgrad.errors import HostFallbackWarning
from ulpgrad.explain import explain
from ulpgrad.formats import bfloat16, float32
from ulpgrad.kernels import capabilities

pytestmark = pytest.mark.skipif(capabilities.missing("triton") is not None, reason=str(capabilities.missing("triton")))

CHAINS: dict[str, Callable[..., Any]] = {
    "gate": lambda x, y: ug.tanh(x) * ug.sigmoid(y) + 0.1 * x,
    "choice": lambda x, y: ug.where(ug.logical_and(x > y, y > -0.5), ug.exp(-x * x), ug.sin(y) / 3.0),
    "activations": lambda x, y: ug.gelu(x) + ug.silu(y) - ug.leaky_relu(x * y, 0.2) + ug.clip(y, -0.5, None),
}
SHAPES = [((5, 6), (5, 6)), ((4, 3), (3,)), ((2, 1, 3), (4, 1))]


def operands(shapes: Any, device: str, dtype: Any) -> list[ug.Tensor]:
    rng = np.random.default_rng(0)
    return [ug.asarray(rng.standard_normal(s), dtype=dtype, device=device).requires_grad_() for s in shapes]


def on_host(t: Any) -> Any:
    return t.detach().to("cpu").to(ug.float64).numpy()


@pytest.mark.parametrize("dtype", [float32, bfloat16], ids=str)
@pytest.mark.parametrize("name", CHAINS)
def test_results_and_gradients_are_those_of_the_cpu(name: str, dtype: Any) -> None:
    """Both devices round at the results alone, so that they differ by what their functions do."""
    whole = ug.fused(CHAINS[name])
    near = {"rtol": 1e-5, "atol": 1e-6} if dtype is float32 else {"rtol": 2e-2, "atol": 2e-2}
    for shapes in SHAPES:
        ours, theirs = operands(shapes, "cuda", dtype), operands(shapes, "cpu", dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HostFallbackWarning)  # of sums, where an operand was broadcast
            y, expected = whole(*ours), whole(*theirs)
            for result in (y, expected):
                result.sum().backward()
        assert y.device.type == "cuda"
        np.testing.assert_allclose(on_host(y), on_host(expected), **near)
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(on_host(a.grad), on_host(b.grad), **near)


def test_one_kernel_each_way() -> None:
    whole = ug.fused(CHAINS["gate"])
    x, y = operands([(40,), (40,)], "cuda", float32)
    whole(x, y).sum().backward()  # writes the chains down
    x.grad = y.grad = None
    calls = calls_of(lambda: whole(x, y).backward(ug.ones(40, device="cuda")))
    assert [op.name for op, *_ in calls if op.family in ("fused", "elementwise")] == ["fused", "fused"]
    assert "cuda/triton-chain" in str(explain("fused", x, y, chain=calls[0][3]["chain"]))


@pytest.mark.parametrize("function", [lambda x: ug.leaky_relu(ug.clip(x, 0.1, 0.7) - 0.3, 0.1), ug.fused(
    lambda x: ug.leaky_relu(ug.clip(x, 0.1, 0.7) - 0.3, 0.1))], ids=["ops", "fused"])  # fmt: skip
def test_numbers_keep_their_digits_in_float64(function: Any) -> None:
    """On a device the numbers of a launch are float32: those of float64 are constants of their kernels."""
    x = np.linspace(-1, 1, 9)
    found = [function(ug.asarray(x, dtype=ug.float64, device=device)) for device in ("cuda", "cpu")]
    np.testing.assert_allclose(*map(on_host, found), rtol=1e-15, atol=0)
