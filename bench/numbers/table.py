"""What a row of the table is, and how it is checked, timed and judged."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ulpgrad.bench.timing import SAMPLE, seconds
from ulpgrad.errors import UlpgradError
from ulpgrad.formats import Array

Call = Callable[[], Any]
Clock = Callable[[], float]
BUDGET = 3.0  # seconds for all samples of one contender
FEWEST = 3
SAMPLES, QUICK_SAMPLES = 15, 3


class WrongResult(UlpgradError):
    """A peer's output is not what ours is."""


@dataclass(frozen=True)
class Contender:
    """Someone who does the work.

    `amount`: values or operations of one call. `values`: its output as an array that is compared with ours, or with
    `expected()` where this call has another size; None: it computes something else, which `note` says.
    """

    name: str
    call: Callable[[], Any]
    amount: float
    values: Callable[[Any], Array] | None = np.asarray
    expected: Callable[[], Array] | None = None
    note: str = ""


@dataclass(frozen=True)
class Target:
    """At least `factor` times as fast as the peer of that name, or that share of the limit ("limit")."""

    factor: float
    over: str

    def __str__(self) -> str:
        return f">= {self.factor:.0%} of the limit" if self.over == "limit" else f">= {self.factor:,g}x {self.over}"


@dataclass(frozen=True)
class Work:
    """One row. `limit()` is what this machine does at most, in `unit`; `scale` brings amounts per second to that unit.
    `threads`: 1 for rates per core, None for all."""

    name: str
    ours: Contender
    peers: Sequence[Contender]
    unit: str
    scale: float
    limit: Callable[[], float | None] = lambda: None
    target: Target | None = None
    threads: int | None = None
    note: str = ""


@dataclass(frozen=True)
class Outcome:
    """What was measured: rates in the row's unit. `ratio`: of the target, else over the best peer. `met`: None where the
    target's peer is missing, or where there is no target."""

    work: str
    unit: str
    threads: int
    rate: float
    peers: dict[str, float]
    limit: float | None
    target: str
    ratio: float | None
    met: bool | None
    samples: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def share(self) -> float | None:
        return self.rate / self.limit if self.limit else None

    @property
    def best(self) -> str | None:
        """The fastest peer."""
        return max(self.peers, key=lambda name: self.peers[name], default=None)

    def as_data(self) -> dict[str, Any]:
        return {**asdict(self), "share": self.share, "best_peer": self.best}


def check(work: Work) -> None:
    """WrongResult where a peer's output differs from ours."""
    ours = work.ours.call()
    for peer in work.peers:
        if peer.values is None:
            continue
        expected = peer.expected() if peer.expected else work.ours.values(ours) if work.ours.values else None
        assert expected is not None, work.name
        found = peer.values(peer.call())
        if found.shape != expected.shape or not np.array_equal(found, expected):
            wrong = int(np.count_nonzero(found != expected)) if found.shape == expected.shape else expected.size
            raise WrongResult(f"{work.name}: {wrong} of {expected.size} values differ from those of {peer.name}")


def measure(work: Work, threads: int, *, quick: bool = False) -> Outcome:
    """Time ours and all peers in turns."""
    contenders = [work.ours, *work.peers]
    clock = time.process_time if threads == 1 else time.perf_counter
    times = in_turns([c.call for c in contenders], QUICK_SAMPLES if quick else SAMPLES, clock)
    rates = [c.amount / statistics.median(t) / work.scale for c, t in zip(contenders, times, strict=True)]
    peers = {c.name: rate for c, rate in zip(work.peers, rates[1:], strict=True)}
    limit = work.limit()
    over = work.target.over if work.target else None
    against = limit if over == "limit" else peers.get(over) if over else max(peers.values(), default=None)
    ratio = rates[0] / against if against else None
    met = None if work.target is None or ratio is None else ratio >= work.target.factor
    notes = (work.note, *(f"{c.name}: {c.note}" for c in contenders if c.note))
    return Outcome(work.name, work.unit, threads, rates[0], peers, limit, str(work.target or ""), ratio, met,
                   {c.name: len(t) for c, t in zip(contenders, times, strict=True)}, tuple(n for n in notes if n))  # fmt: skip


def in_turns(calls: Sequence[Call], samples: int, clock: Clock = time.perf_counter) -> list[list[float]]:
    """Seconds per call of each, in as many rounds as `samples`; slow ones sit out some rounds, but take part in FEWEST."""
    repeats, every = [], []
    for call in calls:
        call()
        once = max(seconds(call, clock=clock), 1e-8)
        repeats.append(max(1, round(10 * SAMPLE / once)))
        count = min(samples, max(FEWEST, int(BUDGET / (once * repeats[-1]))))
        every.append(max(1, samples // count))
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(samples):
        for i, call in enumerate(calls):
            if turn % every[i] == 0:
                times[i].append(seconds(call, repeats[i], clock) / repeats[i])
    return times


__all__ = ["Contender", "Outcome", "Target", "Work", "WrongResult", "check", "in_turns", "measure"]
