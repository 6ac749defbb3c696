"""Where speed is the point: the answer beside contenders, in turns, so that both meet the same machine."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ulpgrad.bench.classroom.exercise import Ratio
from ulpgrad.bench.timing import SAMPLE, seconds

PAIRS = 25
BUDGET = 4.0  # seconds for all pairs


@dataclass(frozen=True)
class Race:
    """`make(answer, rng)` gives the answer's call under the key "yours" and those of contenders; `goal` is in words."""

    make: Callable[[ModuleType, np.random.Generator], Mapping[str, Callable[[], Any]]]
    goal: str

    def run(self, answer: ModuleType, rng: np.random.Generator, pairs: int = PAIRS) -> list[Ratio]:
        """How many times as fast the answer is as each contender: percentiles of the ratios of samples taken in turns."""
        calls = dict(self.make(answer, rng))
        repeats = {}
        for name, call in calls.items():
            call()  # compiles, fills caches
            repeats[name] = max(1, round(SAMPLE / max(seconds(call), 1e-8)))
        once = sum(seconds(call, repeats[name]) for name, call in calls.items())
        count = max(5, min(pairs, int(BUDGET / max(once, 1e-6))))
        gc.disable()
        try:
            rounds = [{n: seconds(call, repeats[n]) / repeats[n] for n, call in calls.items()} for _ in range(count)]
        finally:
            gc.enable()
        return [_ratio(name, [times[name] / times["yours"] for times in rounds]) for name in calls if name != "yours"]


def _ratio(name: str, ratios: list[float]) -> Ratio:
    low, middle, high = (float(q) for q in np.percentile(ratios, [20, 50, 80]))
    return Ratio(name, middle, low, high)


__all__ = ["Race"]
