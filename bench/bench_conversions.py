"""Conversions beside what else does them: the recipe one writes in NumPy, ml_dtypes, and torch where it is installed.

    python -m ulpgrad.bench.bench_conversions     # the table; `pytest bench` keeps the same figures in its records

Samples are taken in turns, so that all meet the same machine; medians are compared. One thread each (`--threads N` for more):
NumPy and ml_dtypes have no other.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.bench.peers.others import torch
from ulpgrad.bench.timing import seconds
from ulpgrad.formats import Array

COUNT = 10_000_000
SAMPLES = 9

Call = Callable[[], Any]
Task = Callable[[Array], dict[str, Call]]


def saturated(x: Array) -> Array:
    """float32 to Q7.8: three sweeps in one buffer, and a cast."""
    y: Array = x * np.float32(256)
    np.rint(y, out=y)
    np.clip(y, -32768, 32767, out=y)
    return np.asarray(y.astype(np.int16))


def dithered(x: Array, rng: np.random.Generator) -> Array:
    """float32 to bfloat16 by sixteen random bits below the kept ones."""
    bits = x.view(np.uint32) + rng.integers(0, 1 << 16, x.size, np.uint32)
    return np.asarray(bits >> np.uint32(16), np.uint16)


def mxfp8(x: Array) -> tuple[Array, Array]:
    """float32 to MXFP8 (e4m3): scales from exponent bits, then ml_dtypes."""
    blocks = x.reshape(-1, 32)
    exponents = (np.abs(blocks).max(axis=1).view(np.int32) >> 23) - 8
    scaled = np.clip(blocks * np.exp2((127 - exponents).astype(np.float32))[:, None], -448, 448)
    return scaled.astype(ml_dtypes.float8_e4m3fn), exponents.astype(np.uint8)


def to_float(name: str) -> Task:
    def task(x: Array) -> dict[str, Call]:
        own, kind, peer = ug.asarray(x), getattr(ml_dtypes, name), torch()
        calls: dict[str, Call] = {"ulpgrad": lambda: own.to(name), "ml_dtypes": lambda: x.astype(kind)}
        if hasattr(peer, name):
            theirs = peer.from_numpy(x)
            calls["torch"] = lambda: theirs.to(getattr(peer, name))
        return calls

    return task


def from_float(name: str) -> Task:
    def task(x: Array) -> dict[str, Call]:
        own, codes, peer = ug.asarray(x).to(name), x.astype(getattr(ml_dtypes, name)), torch()
        calls: dict[str, Call] = {"ulpgrad": lambda: own.to(ug.float32), "ml_dtypes": lambda: codes.astype(np.float32)}
        if hasattr(peer, name):
            theirs = peer.from_numpy(x).to(getattr(peer, name))
            calls["torch"] = lambda: theirs.to(peer.float32)
        return calls

    return task


def to_fixed(x: Array) -> dict[str, Call]:
    own, peer = ug.asarray(x), torch()
    calls: dict[str, Call] = {"ulpgrad": lambda: own.to("q7.8"), "NumPy recipe": lambda: saturated(x)}
    if peer is not None:
        theirs = peer.from_numpy(x)
        calls["torch"] = lambda: (theirs * 256).round_().clamp_(-32768, 32767).to(peer.int16)
    return calls


def from_fixed(x: Array) -> dict[str, Call]:
    own = ug.asarray(x).to("q7.8")
    return {"ulpgrad": lambda: own.to(ug.float32), "NumPy recipe": lambda: own.storage * np.float32(2.0**-8)}


def to_blocks(x: Array) -> dict[str, Call]:
    own = ug.asarray(x)
    return {"ulpgrad": lambda: own.to("mxfp8_e4m3"), "NumPy recipe": lambda: mxfp8(x)}


def stochastic(x: Array) -> dict[str, Call]:
    own, rng = ug.asarray(x), np.random.default_rng(0)
    return {"ulpgrad": lambda: own.to("bfloat16", rounding="stochastic"), "NumPy recipe": lambda: dithered(x, rng)}


def on_grid(x: Array) -> dict[str, Call]:
    own, kind = ug.asarray(x), ml_dtypes.float8_e4m3fn
    return {
        "ulpgrad": lambda: ug.fake_quantize(own, "float8_e4m3fn"),
        "ml_dtypes": lambda: x.astype(kind).astype(np.float32),
    }


TASKS: dict[str, Task] = {
    **{f"float32 to {name}": to_float(name) for name in ("float8_e4m3fn", "float8_e5m2", "float4_e2m1fn", "bfloat16")},
    "float32 to bfloat16, stochastic": stochastic,
    "float32 to q7.8, saturating": to_fixed,
    "float32 to mxfp8_e4m3": to_blocks,
    "float32 on the grid of float8_e4m3fn": on_grid,
    **{f"{name} to float32": from_float(name) for name in ("float8_e4m3fn", "float8_e5m2", "bfloat16")},
    "q7.8 to float32": from_fixed,
}


def rates(name: str, count: int = COUNT) -> dict[str, float]:
    """Millions of values a second of all contenders: medians of samples in turns."""
    calls = TASKS[name](np.random.default_rng(0).standard_normal(count, dtype=np.float32))
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {who: [] for who in calls}
    for _ in range(SAMPLES):
        for who, call in calls.items():
            times[who].append(seconds(call))
    return {who: count / 1e6 / statistics.median(found) for who, found in times.items()}


@pytest.mark.parametrize("name", list(TASKS))
def test_conversion(benchmark: Any, name: str) -> None:
    """At least as fast as every peer; where memory is the limit of both, one fifth counts as noise."""
    found = benchmark.pedantic(lambda: rates(name), rounds=1)
    benchmark.extra_info["million_values_per_second"] = found
    best = max(rate for who, rate in found.items() if who != "ulpgrad")
    benchmark.extra_info["times_as_fast_as_the_best_peer"] = found["ulpgrad"] / best
    assert found["ulpgrad"] >= 0.8 * best, f"{name}: {found['ulpgrad'] / best:.2f} times as fast as the best peer"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description="Rates of conversions, and how many times as fast as peers ulpgrad is."
    )
    parser.add_argument("--threads", type=int, default=1)
    ug.set_num_threads(parser.parse_args().threads)
    print(f"{'M values/s, and ratios':<40}{'ulpgrad':>9}  peers")
    for name in TASKS:
        found = rates(name)
        own = found.pop("ulpgrad")
        peers = ", ".join(f"{who} {rate:.0f} ({own / rate:.1f}x)" for who, rate in found.items())
        print(f"{name:<40}{own:>9.0f}  {peers}")


if __name__ == "__main__":
    main()
