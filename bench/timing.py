"""Time of a call: the median of repeated samples, each long enough for the clock, with the spread beside it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SLOW = 2.0  # seconds: a call that takes longer is run once
SAMPLE = 1e-3  # seconds that one sample lasts at least
UNITS = (("s", 1.0), ("ms", 1e-3), ("us", 1e-6))
BUDGET = 1.0  # seconds for all samples of a call
REST = 0.12  # seconds before a turn: threads of the one before still spin (OpenBLAS: 0.1 s), and take part of the processor


@dataclass(frozen=True)
class Timing:
    """Seconds per call: median, 20th and 80th percentile of `samples` samples. One sample: too slow to repeat."""

    median: float
    p20: float
    p80: float
    samples: int

    @property
    def is_single(self) -> bool:
        """Whether the call was run only once."""
        return self.samples == 1


def measure(call: Callable[[], Any], samples: int = 20, *, compiles: bool = False) -> Timing:
    """Time `call`, after a first run that fills caches; `compiles`: that run says nothing about the time.

    At most `samples` samples, fewer (but three) when they would take more than BUDGET.
    """
    first = seconds(call)
    once = seconds(call) if compiles or first < SLOW else first
    if once >= SLOW:
        return Timing(once, once, once, 1)
    repeats = max(1, round(SAMPLE / max(once, 1e-8)))
    count = max(3, min(samples, int(BUDGET / max(once * repeats, SAMPLE))))
    values = sorted(seconds(call, repeats) / repeats for _ in range(count))
    low, high = (values[round(q * (count - 1))] for q in (0.2, 0.8))
    return Timing(statistics.median(values), low, high, count)


def seconds(call: Callable[[], Any], repeats: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of `repeats` calls in a row."""
    start = clock()
    for _ in range(repeats):
        call()
    return clock() - start


def readable(time_in_seconds: float) -> str:
    """Three digits and a unit: "12.3 us"."""
    unit, scale = next((u for u in UNITS if time_in_seconds >= u[1]), UNITS[-1])
    value = time_in_seconds / scale
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
