"""Time on a GPU: medians between device events, each call on a second-level cache that holds something else."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from ulpgrad.bench.timing import Timing
from ulpgrad.kernels import gpu

SAMPLES = 30
BUDGET = 1.0  # seconds of samples of one call
WARM = 3
CACHE = 128 << 20  # bytes written between samples: more than any second-level cache
TIMES = 6  # that they are written: some 200 us, which the host has to launch what is timed


@cache
def _scratch() -> Any:
    size = CACHE if not gpu.mode() else 1 << 10
    return gpu.xp().empty(size // 8, np.uint64)  # eight bytes a thread: as fast as memory


def seconds(calls: Sequence[Callable[[], Any]], samples: int | None = None) -> list[list[float]]:
    """Seconds per call of each, in turns, so many `samples` at most (else SAMPLES). While the cache is written over the host goes
    ahead: calls of several small launches are timed as the device runs them, not as the host makes them."""
    cuda = gpu.xp().cuda
    most = samples or SAMPLES
    counts = []
    for call in calls:
        for _ in range(WARM):
            call()
        cuda.runtime.deviceSynchronize()
        start = time.perf_counter()
        call()
        cuda.runtime.deviceSynchronize()
        counts.append(max(3, min(most, int(BUDGET / max(time.perf_counter() - start, 1e-6)))))
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(most):
        for call, count, taken in zip(calls, counts, times, strict=True):
            if turn >= count:
                continue
            before, after = cuda.Event(), cuda.Event()
            for _ in range(TIMES):
                _scratch().fill(turn + 1)
            before.record()
            call()
            after.record()
            after.synchronize()
            taken.append(cuda.get_elapsed_time(before, after) * 1e-3)
    return times


def median(call: Callable[[], Any]) -> float:
    """The median time of one call."""
    return statistics.median(seconds([call])[0])


def timing(call: Callable[[], Any], samples: int | None = None) -> Timing:
    """One call as the benchmarks record it."""
    found = sorted(seconds([call], samples)[0])
    low, high = (found[round(q * (len(found) - 1))] for q in (0.2, 0.8))
    return Timing(statistics.median(found), low, high, len(found))


def host_seconds(call: Callable[[], Any], repeats: int = 2000) -> float:
    """What a call takes of the host: the least of some rounds of calls that are queued and not waited for."""
    cuda, least = gpu.xp().cuda, float("inf")
    for _ in range(5):
        cuda.runtime.deviceSynchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        least = min(least, (time.perf_counter() - start) / repeats)
        cuda.runtime.deviceSynchronize()
    return least
