"""What a row is, and how it is checked, timed and judged."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from ulpgrad.bench.timing import REST, SAMPLE, seconds
from ulpgrad.errors import UlpgradError
from ulpgrad.formats import Array

Call = Callable[[], Any]
Clock = Callable[[], float]
OURS = "ulpgrad"
BUDGET = 3.0  # seconds for all samples of one contender
FEWEST = 3
QUICK = 0.1  # seconds: a call that takes no longer is run once after the rest, before the clock starts
SAMPLES, QUICK_SAMPLES, SWEEP_SAMPLES = 15, 3, 7


class WrongResult(UlpgradError):
    """A contender's output is not what it should be."""


@dataclass(frozen=True)
class Contender:
    """Someone who does the work.

    `amount`: values or operations of one call. `values`: its output as an array that is checked against ours (or against
    `expected()` where this call has another size), or against `Work.exact`; None: it computes something else, which
    `note` says.
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
class Slack:
    """A call may take as long as the peer's of that name, and so many seconds more."""

    seconds: float
    over: str

    def __str__(self) -> str:
        return f"<= {self.over} + {self.seconds * 1e3:g} ms"


@dataclass(frozen=True)
class Work:
    """One row. `limit()` is what this machine does at most, in `unit`; `scale` brings amounts per second to that unit.

    `exact()`: the result in float64; contenders may then differ from it by `within`, relative to its norm. Without it they
    must be equal to ours. `threads`: 1 for rates per core, None for all. `clock`: where it is not the usual one.
    """

    name: str
    ours: Contender
    peers: Sequence[Contender]
    unit: str
    scale: float
    limit: Callable[[], float | None] = lambda: None
    targets: Sequence[Target | Slack] = ()
    threads: int | None = None
    note: str = ""
    exact: Callable[[], Array] | None = None
    within: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """A target and what came of it: `met`, None where the peer is missing, so that nobody knows; `allowed`, the largest
    ratio that the machine's limit leaves room for, and whether that is enough."""

    target: str
    ratio: float | None
    met: bool | None
    allowed: float | None = None
    is_allowed: bool = True

    @property
    def text(self) -> str:
        """met, missed, out of reach, or nothing."""
        if self.met is None:
            return ""
        return "met" if self.met else "missed" if self.is_allowed else "out of reach"


@dataclass(frozen=True)
class Outcome:
    """What was measured: median rates in the row's unit; `spread`, the 20th and 80th percentiles of the rates of all;
    errors relative to the norm of the float64 result."""

    work: str
    unit: str
    threads: int
    rate: float
    peers: dict[str, float]
    limit: float | None
    verdicts: tuple[Verdict, ...] = ()
    errors: dict[str, float] = field(default_factory=dict)
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def share(self) -> float | None:
        return self.rate / self.limit if self.limit else None

    @property
    def best(self) -> str | None:
        """The fastest peer."""
        return max(self.peers, key=lambda name: self.peers[name], default=None)

    @property
    def ratio(self) -> float | None:
        """Over the fastest peer."""
        return self.rate / self.peers[self.best] if self.best else None

    @property
    def is_behind(self) -> bool:
        """Whether the fastest peer is faster, beyond the noise of both."""
        return self.best is not None and self.spread[OURS][1] < self.spread[self.best][0]

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Outcome:
        """What `as_data` wrote."""
        kept = {f.name: data[f.name] for f in fields(cls)}
        verdicts = tuple(Verdict(**{f.name: v[f.name] for f in fields(Verdict)}) for v in data["verdicts"])
        spread = {name: (low, high) for name, (low, high) in data["spread"].items()}
        return cls(**{**kept, "verdicts": verdicts, "spread": spread, "notes": tuple(data["notes"])})

    def as_data(self) -> dict[str, Any]:
        verdicts = [{**asdict(v), "verdict": v.text} for v in self.verdicts]
        return {**asdict(self), "verdicts": verdicts, "share": self.share, "best_peer": self.best, "ratio": self.ratio}


def check(work: Work) -> dict[str, float]:
    """Errors of all contenders by name, where there is an exact result. WrongResult where one's output is not right."""
    if work.exact is None:
        _equal(work)
        return {}
    exact = work.exact()
    size = float(np.linalg.norm(exact.astype(np.float64))) or 1.0
    errors = {}
    for one in (work.ours, *work.peers):
        if one.values is None:
            continue
        found = np.asarray(one.values(one.call()), np.float64)
        if found.shape != exact.shape:
            raise WrongResult(f"{work.name}: {one.name} gives shape {found.shape} instead of {exact.shape}")
        errors[one.name] = float(np.linalg.norm((found - exact).astype(np.float64))) / size
        if not errors[one.name] <= work.within:
            raise WrongResult(
                f"{work.name}: {one.name} is off by {errors[one.name]:.2g} of the result's norm; {work.within:g} is allowed"
            )
    return errors


def _equal(work: Work) -> None:
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


def measure(work: Work, threads: int, samples: int = SAMPLES, errors: dict[str, float] | None = None) -> Outcome:
    """Time ours and all peers in turns."""
    clock = time.process_time if threads == 1 and work.threads == 1 else time.perf_counter
    times = in_turns([c.call for c in (work.ours, *work.peers)], samples, clock)
    time.sleep(REST)
    return outcome(work, threads, times, errors or {})


def outcome(work: Work, threads: int, times: Sequence[Sequence[float]], errors: dict[str, float]) -> Outcome:
    """What seconds per call of ours and of each peer come to, beside the limit, which is measured now."""
    taken = {c.name: (c.amount, list(t)) for c, t in zip((work.ours, *work.peers), times, strict=True)}
    medians = {name: statistics.median(t) for name, (_, t) in taken.items()}
    rates = {name: amount / medians[name] / work.scale for name, (amount, _) in taken.items()}
    spread = {name: _spread([amount / one / work.scale for one in t]) for name, (amount, t) in taken.items()}
    ours, peers, limit = rates[work.ours.name], {c.name: rates[c.name] for c in work.peers}, work.limit()
    above = "above the limit: the machine was disturbed; measure again" if limit and ours > 1.05 * limit else ""
    notes = (work.note, above, *(f"{c.name}: {c.note}" for c in (work.ours, *work.peers) if c.note))
    return Outcome(
        work.name, work.unit, threads, ours, peers, limit,
        tuple(judge(t, ours, peers, limit, medians) for t in work.targets), errors, spread,
        {name: len(t) for name, (_, t) in taken.items()}, tuple(n for n in notes if n),
    )  # fmt: skip


def _spread(rates: list[float]) -> tuple[float, float]:
    ordered = sorted(rates)
    low, high = (ordered[round(q * (len(ordered) - 1))] for q in (0.2, 0.8))
    return low, high


def judge(
    target: Target | Slack, rate: float, peers: dict[str, float], limit: float | None, medians: dict[str, float]
) -> Verdict:
    """Whether a target is met; nobody knows where its peer is missing."""
    if isinstance(target, Slack):
        ours, theirs = next(iter(medians.values())), medians.get(target.over)
        if theirs is None:
            return Verdict(str(target), None, None)
        return Verdict(str(target), theirs / ours, ours <= theirs + target.seconds)
    against = limit if target.over == "limit" else peers.get(target.over)
    if not against:
        return Verdict(str(target), None, None)
    allowed = limit / against if limit else None
    is_allowed = allowed is None or allowed >= target.factor
    return Verdict(str(target), rate / against, rate >= target.factor * against, allowed, is_allowed)


def in_turns(calls: Sequence[Call], samples: int, clock: Clock = time.perf_counter) -> list[list[float]]:
    """Seconds per call of each, in as many rounds as `samples`; slow ones sit out some rounds, but take part in FEWEST."""
    repeats, every, fast = [], [], []
    for call in calls:
        call()
        once = max(seconds(call, clock=clock), 1e-8)
        repeats.append(max(1, round(10 * SAMPLE / once)))
        fast.append(once <= QUICK)
        count = min(samples, max(FEWEST, int(BUDGET / (once * repeats[-1]))))
        every.append(max(1, samples // count))
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(samples):
        for i, call in enumerate(calls):
            if turn % every[i] == 0:
                time.sleep(REST)
                if fast[i]:
                    call()
                times[i].append(seconds(call, repeats[i], clock) / repeats[i])
    return times


__all__ = [
    "OURS", "QUICK_SAMPLES", "SAMPLES", "SWEEP_SAMPLES", "Contender", "Outcome", "Slack", "Target", "Verdict", "Work",
    "WrongResult", "check", "in_turns", "judge", "measure", "outcome",
]  # fmt: skip
