"""Two versions that were measured in turns: how far apart they are, and how well that is known.

A round has a process of each version, which take samples of a cell in turns of a few milliseconds: before, after, after, before,
and so on. Whatever the machine does for longer than that, it does to both. A turn is known by its shortest sample, two
neighbouring turns by the logarithm of their ratio, a round by the median of those. What is left to chance then is what a process
has by chance: where its memory lies. So the rounds are what is counted: their mean, with Student's interval, is the change. Of
many rounds the mean is trimmed, and the ends count as their neighbours (Yuen 1974): one process in twenty may be far off.

The interval is that of all rows together: with a chance of CHANCE even one of them lies outside its own (Bonferroni).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from ulpgrad.bench.suite.record import Time

CHANCE = 0.01  # that one of the rows of a comparison is accused although nothing changed
FEWEST = 6  # rounds before an interval is believed
MANY, TRIMMED = 12, 6  # rounds from which the ends are trimmed, a sixth of them on either side


def differences(before: Time, after: Time, turns: int) -> list[float]:
    """Logarithms of time after over time before, of each round that both have."""
    found = []
    for old, new in zip(before.rounds, after.rounds, strict=False):
        each = min(len(old), len(new)) // turns  # samples of a turn; one version may be so slow that it had one only
        if each:
            pairs = zip(_shortest(old, turns, each), _shortest(new, turns, each), strict=True)
            found.append(statistics.median(math.log(b / a) for a, b in pairs))
    return found


def _shortest(samples: Sequence[float], turns: int, each: int) -> list[float]:
    size = len(samples) // turns
    return [min(samples[i * size : i * size + each]) for i in range(turns)]


def interval(found: Sequence[float], rows: int) -> tuple[float, float]:
    """The change that rounds show, and how far it may be from the truth; infinity of too few."""
    count = len(found)
    if count < FEWEST:
        return (statistics.fmean(found) if found else 0.0), math.inf
    ends = count // TRIMMED if count >= MANY else 0
    ordered = sorted(found)
    kept = ordered[ends : count - ends]
    error = statistics.stdev([kept[0]] * ends + kept + [kept[-1]] * ends) * math.sqrt(count) / len(kept)
    return statistics.fmean(kept), error * student(len(kept) - 1, CHANCE / rows)


def student(freedom: int, chance: float) -> float:
    """How many standard errors Student's t is away from 0 with that chance, on either side."""
    low, high = 0.0, math.pi / 2
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if 1 - _inside(freedom, middle) > chance else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _inside(freedom: int, angle: float) -> float:
    """The chance that |t| < sqrt(freedom) tan(angle): Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    cosine = math.cos(angle)
    is_odd = freedom % 2
    term, total = (cosine if is_odd else 1.0), 0.0
    for k in range(1 + is_odd, freedom, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if is_odd else total


__all__ = ["CHANCE", "FEWEST", "differences", "interval", "student"]
