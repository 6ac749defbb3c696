"""Small eager calls and a training step, beside torch where it is installed (pip install 'ulpgrad[peers]')."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug

BATCH = 64


def eight(library: Any) -> Callable[[], Any]:
    """One eager addition of 8 elements, nothing recorded."""
    values = np.arange(8, dtype=np.float32)
    a, b = library.asarray(values), library.asarray(values)
    return lambda: a + b


def mlp_step(library: Any, nn: Any, optim: Any, cross_entropy: Callable[..., Any]) -> Callable[[], Any]:
    """A step of an MLP 784-512-256-10 by Adam, at batch 64."""
    rng = np.random.default_rng(0)
    x = library.asarray(rng.standard_normal((BATCH, 784), dtype=np.float32))
    y = library.asarray(rng.integers(0, 10, BATCH))
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def torch() -> Any:
    """The peer, on as many threads as ulpgrad uses."""
    found = pytest.importorskip("torch", reason="torch is not installed: pip install 'ulpgrad[peers]'")
    found.set_num_threads(ug.get_num_threads())
    return found


def make(task: str, library: str) -> Callable[[], Any]:
    if library == "ulpgrad":
        return eight(ug) if task == "add 8" else mlp_step(ug, ug.nn, ug.optim, ug.cross_entropy)
    peer = torch()
    return eight(peer) if task == "add 8" else mlp_step(peer, peer.nn, peer.optim, peer.nn.functional.cross_entropy)


@pytest.mark.parametrize("library", ["ulpgrad", "torch"])
@pytest.mark.parametrize("task", ["add 8", "MLP step"])
def test_task(benchmark: Any, task: str, library: str) -> None:
    benchmark.group = task
    benchmark(make(task, library))


@pytest.mark.parametrize("task", ["add 8", "MLP step"])
def test_beside_torch(benchmark: Any, task: str) -> None:
    """No slower than torch: samples in turns, so that both meet the same machine; the medians are compared."""
    from ulpgrad.bench.timing import seconds

    own, peer = make(task, "ulpgrad"), make(task, "torch")
    repeats = 2000 if task == "add 8" else 10
    benchmark.group = task
    pairs = benchmark.pedantic(lambda: [(seconds(own, repeats), seconds(peer, repeats)) for _ in range(21)],
                               rounds=1, warmup_rounds=1)  # fmt: skip
    ratio = float(np.median([b for _, b in pairs]) / np.median([a for a, _ in pairs]))
    benchmark.extra_info["times_as_fast_as_torch"] = ratio
    assert ratio >= 1, f"{task}: {ratio:.2f} times as fast as torch"
