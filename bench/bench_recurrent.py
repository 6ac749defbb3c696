"""Recurrent layers and cells beside torch's, forward alone and in a training step.

    python -m ulpgrad.bench.bench_recurrent     # the table; `pytest bench` keeps the same figures in its records

Samples are taken in turns, so that both meet the same machine; medians are compared, on all threads (`--threads N`).
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import nn
from ulpgrad.bench.peers.others import torch
from ulpgrad.bench.timing import measure, seconds

SAMPLES = 9
SAMPLE = 5e-3  # seconds that one sample lasts about

# (steps, batch, inputs, hidden); no steps: one step of a cell.
SHAPES = (
    (64, 32, 256, 256),
    (64, 1, 256, 256),
    (32, 8, 512, 512),
    (28, 64, 28, 100),
    (None, 64, 256, 256),
    (None, 1, 256, 256),
)
TASKS = [(kind, shape, trains) for kind in ("LSTM", "GRU", "RNN") for shape in SHAPES for trains in (False, True)]

Call = Callable[[], Any]


def calls(kind: str, shape: tuple[int | None, ...], trains: bool) -> dict[str, Call]:
    """One layer on both sides, with the same values."""
    *sizes, inputs, hidden = shape
    name = kind if sizes[0] else f"{kind}Cell"
    values = np.random.default_rng(0).standard_normal([s for s in (*sizes, inputs) if s], dtype=np.float32)
    own, x, peer = getattr(nn, name)(inputs, hidden), ug.asarray(values), torch()
    found: dict[str, Call] = {"ulpgrad": step(own, x, ug.no_grad, trains)}
    if peer is not None:
        theirs = getattr(peer.nn, name)(inputs, hidden)
        theirs.load_state_dict({n: peer.from_numpy(p.numpy()) for n, p in own.state_dict().items()})
        found["torch"] = step(theirs, peer.from_numpy(values), peer.no_grad, trains)
    return found


def step(layer: Any, x: Any, no_grad: Any, trains: bool) -> Call:
    """The layer's call, alone or with its gradients."""

    def first(result: Any) -> Any:
        return result[0] if isinstance(result, tuple) else result

    def train() -> None:
        layer.zero_grad()
        first(layer(x)).sum().backward()

    def infer() -> None:
        with no_grad():
            layer(x)

    return train if trains else infer


def times(kind: str, shape: tuple[int | None, ...], trains: bool) -> dict[str, float]:
    """Seconds of one call of all contenders: medians of samples in turns."""
    found = calls(kind, shape, trains)
    repeats = {who: max(1, round(SAMPLE / measure(call, 3).median)) for who, call in found.items()}
    samples: dict[str, list[float]] = {who: [] for who in found}
    for _ in range(SAMPLES):
        for who, call in found.items():
            samples[who].append(seconds(call, repeats[who]) / repeats[who])
    return {who: statistics.median(values) for who, values in samples.items()}


def called(kind: str, shape: tuple[int | None, ...], trains: bool) -> str:
    """The task in a few words."""
    steps, batch, inputs, hidden = shape
    name = f"{kind} {steps} steps" if steps else f"{kind}Cell"
    return f"{name}, batch {batch}, {inputs} to {hidden}{', training' if trains else ''}"


@pytest.mark.parametrize("task", TASKS, ids=lambda task: called(*task))
def test_layer(benchmark: Any, task: tuple[str, tuple[int | None, ...], bool]) -> None:
    """Never behind torch by more than a fifth, which counts as noise."""
    found = benchmark.pedantic(lambda: times(*task), rounds=1)
    benchmark.extra_info["seconds"] = found
    if "torch" in found:
        ratio = found["torch"] / found["ulpgrad"]
        benchmark.extra_info["times_as_fast_as_torch"] = ratio
        assert ratio >= 0.8, f"{called(*task)}: {ratio:.2f} times as fast as torch"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Times of recurrent layers, and how many times as fast as torch.")
    parser.add_argument("--threads", type=int, default=ug.get_num_threads())
    ug.set_num_threads(parser.parse_args().threads)
    print(f"{'ms':<48}{'ulpgrad':>9}{'torch':>9}")
    for task in TASKS:
        found = times(*task)
        own, theirs = found["ulpgrad"] * 1e3, found.get("torch", float("nan")) * 1e3
        print(f"{called(*task):<48}{own:>9.3f}{theirs:>9.3f}{theirs / own:>7.2f}x", flush=True)


if __name__ == "__main__":
    main()
