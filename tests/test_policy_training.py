"""A small network learns the digits under every policy, twice alike, with nothing that is not finite on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import data, nn
from ulpgrad.kernels.threads import get_num_threads, set_num_threads
from ulpgrad.policy import DelayedScaling, DynamicFixed, Policy, dorefa, watch

Array = np.ndarray[Any, Any]
BATCH, STEPS, CHANCE = 64, 60, 0.9


def fixed(n: int = 12, **options: Any) -> Policy:
    q = ug.as_format(f"q{15 - n}.{n}")
    return Policy(weight=q, activation=q, gradient=q, update=q, **options)


def dynamic() -> Policy:
    chosen = DynamicFixed(bits=10, update_bits=12)
    return Policy(weight=chosen, activation=chosen, gradient=chosen, update=chosen, rounding={"update": "stochastic"})


def wang() -> Policy:
    """Wang et al. 2018: 1-5-2 operands, 1-6-9 sums in chunks of 64 and 1-6-9 weights, stochastically updated."""
    low = ug.as_format("float8_e5m2")
    return Policy(weight=low, activation=low, gradient=low, bias=None, everywhere=False, update="e6m9",
                  accumulate=ug.Accumulate("e6m9", chunk=64), rounding={"update": "stochastic"})  # fmt: skip


# Policies, and the test error that 60 steps must beat; float32 reaches 0.09.
POLICIES: dict[str, tuple[Callable[[], Any], float]] = {
    "hybrid": (DelayedScaling, 0.15),
    "mxfp8": (lambda: ug.autocast("mxfp8_e4m3"), 0.15),
    "mxfp6": (lambda: ug.autocast("mxfp6_e2m3"), 0.15),
    "fixed point, stochastic": (lambda: fixed(rounding={"update": "stochastic", "gradient": "stochastic"}), 0.15),
    "fixed point, int64": (lambda: fixed(accumulate="int64", rounding="stochastic"), 0.15),
    "1-6-9 in chunks": (wang, 0.2),
    "dynamic fixed point": (dynamic, 0.2),
    "DoReFa": (
        lambda: Policy(weight=dorefa.weight(8), activation=dorefa.activation(8), gradient=dorefa.gradient(8),
                       overrides={"0": {"activation": None}}),
        0.5,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = get_num_threads()
    set_num_threads(1)
    yield
    set_num_threads(before)


def images(split: str) -> tuple[Array, Array]:
    x, y = data.digits(split).arrays
    return np.asarray(x).reshape(len(x), -1), np.asarray(y)


def train(policy: Any, steps: int = STEPS) -> tuple[nn.Module, float]:
    """The network after some steps of SGD with momentum, and its test error under the policy."""
    ug.manual_seed(1)
    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    optimizer = ug.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if isinstance(policy, Policy):
        policy.bind(model)
    x, y = images("train")
    order = np.random.default_rng(0).permutation(np.resize(np.arange(len(x)), steps * BATCH))
    with watch(model):
        for i in range(steps):
            rows = order[i * BATCH : (i + 1) * BATCH]
            with policy:
                loss = ug.cross_entropy(model(ug.asarray(x[rows])), ug.asarray(y[rows]))
            model.zero_grad()
            loss.backward()
            if isinstance(policy, Policy):
                policy.step(optimizer)
            else:
                optimizer.step()
    x, y = images("test")
    with ug.no_grad(), policy:
        found = model(ug.asarray(x)).numpy().argmax(axis=1)
    return model, float((found != y).mean())


@pytest.mark.parametrize("name", POLICIES)
def test_digits_are_learned(name: str) -> None:
    make, limit = POLICIES[name]
    assert train(make())[1] < limit


@pytest.mark.parametrize("name", ["fixed point, stochastic", "hybrid", "dynamic fixed point", "DoReFa"])
def test_training_repeats_to_the_bit(name: str) -> None:
    first, second = (train(POLICIES[name][0](), steps=5)[0] for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


def test_parameters_stay_on_the_updates_grid() -> None:
    model, _ = train(fixed(8, rounding="stochastic"), steps=5)
    for p in model.parameters():
        units = p.detach().numpy() * 2.0**8
        np.testing.assert_array_equal(units, np.rint(units))
        assert np.abs(units).max() <= 2**15
