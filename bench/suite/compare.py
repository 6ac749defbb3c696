"""Two runs beside each other: what became faster or slower beyond noise.

Other programs, and other machines on the same processor, lengthen samples, some or nearly all of them; nothing shortens them. So
a row is judged by the shortest sample of each of its rounds, which lie apart in time and in processes of their own, and of these
by the three quickest: where three rounds come to the same time, that is what the code takes. The change of a row is what its
quickest, second and third round agree on: the smallest of three ratios, and none where they contradict each other. It is a
difference only where all of these hold:

- the noise of both runs, from the quickest to the third round, lies apart;
- it is larger than LEAST;
- it is larger than chance allows: what the quickest rounds of both runs differ by, together with what times differ by from
  run to run although nothing changed. The latter is measured: by peers of the same version in both runs, by several
  runs before among each other, and where there are neither, by the rows themselves, of which most did not change. How many
  standard deviations are needed follows from CHANCE, the chance of even one false alarm, and the number of rows that are
  compared (Bonferroni).

Of two versions that were measured in turns each row is judged by itself, in pairs that lie milliseconds apart (`in_turns`).

A shift that all peers share is the machine's, and is taken out. Where a run was made on a busy machine, such a difference is
called unsure: another program on the same core takes half of its speed for as long as it runs, from one row, not from the next.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ulpgrad.bench.suite import paired
from ulpgrad.bench.suite.record import OURS, Record, Row, Time
from ulpgrad.bench.suite.turns import Pair
from ulpgrad.errors import DataError

LEAST = 0.05  # a difference below 5 % is not worth a word
CHANCE = 0.01  # of one false alarm in a comparison
ALIKE = 0.01  # times of two runs agree no better than that, whatever was measured
ENOUGH = 5  # witnesses from which they are believed
TAILS = 20  # witnesses from which the worst of them are more than one
BATCHES = 4  # parts of a run in one round, in their order
FEW = 3  # rounds that must agree: fewer may be quick by chance, more are rarely left alone
OF_REACH = (
    1.0  # the standard error of a time over how far its quickest rounds lie apart; 0.6 were those of normal values
)
OF_DEVIATION = 1.4826  # a normal standard deviation over the median distance from the median
UNKNOWN = math.log(100)  # of fewer rounds than an interval takes
WIDER = 1.1  # memory does not vary by chance: what is a tenth more is more
WORSE = 2.0  # errors do, since each run draws its values anew: over 40 draws that of 64 sums by a factor of 1.6

Key = tuple[Any, ...]
Verdict = Literal["slower", "faster", "unsure", "none"]


@dataclass(frozen=True)
class Change:
    """A row that both runs measured. `ratio`: time after over time before, the machine's shift taken out; `noise`: one standard
    error of its logarithm, of versions in turns the reach of its interval; `needed`: the factor beyond which it differs."""

    before: Row
    after: Row
    ratio: float
    noise: float
    needed: float
    verdict: Verdict

    def as_data(self) -> dict[str, Any]:
        assert self.before.time is not None
        assert self.after.time is not None
        return {
            "op": self.after.op, "format": self.after.format, "size": self.after.size, "device": self.after.device,
            "threads": self.after.threads, "contender": self.after.contender, "rung": self.after.rung,
            "rung_before": self.before.rung, "before": self.before.time.median, "after": self.after.time.median,
            "ratio": self.ratio, "noise": self.noise, "needed": self.needed, "verdict": self.verdict,
        }  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """`alike`: standard deviation of the logarithm of a time from run to run; `witnesses`: of how many things that did not change
    it was found; `shift`: of the whole machine, a factor. `others`: rows that were measured in one run only, or whose error or
    memory changed, with what happened. `mind`: why the runs may not be comparable. `find`: of versions that were
    measured in turns the factor that was to be found; from run to run means nothing there."""

    changes: tuple[Change, ...]
    alike: float
    witnesses: int
    shift: float
    others: tuple[tuple[Row, str], ...]
    mind: tuple[str, ...]
    find: float | None = None

    def of(self, verdict: Verdict) -> list[Change]:
        """Changes of a kind, the largest first."""
        found = [c for c in self.changes if c.verdict == verdict]
        return sorted(found, key=lambda c: -abs(math.log(c.ratio)))

    def as_data(self) -> dict[str, Any]:
        return {
            "kind": "ulpgrad-bench-comparison", "version": 2, "find": self.find, "run_to_run": self.alike,
            "witnesses": self.witnesses,
            "shift": self.shift, "mind": list(self.mind), "changes": [c.as_data() for c in self.changes],
            "others": [{"op": r.op, "format": r.format, "size": r.size, "contender": r.contender, "rung": r.rung, "what": what}
                       for r, what in self.others],
        }  # fmt: skip


def compare(before: Sequence[Record], after: Record) -> Comparison:
    """Every row of ours that is in a run before and in the one after. DataError if they have none in common."""
    earlier: dict[Key, list[Row]] = {}
    for record in before:
        for row in record.rows:
            earlier.setdefault(row.key, []).append(row)
    pairs = [
        (measured, row) for row in after.rows
        if row.contender == OURS and timed(row) and (measured := [r for r in earlier.get(row.key, ()) if timed(r)])
    ]  # fmt: skip
    if not pairs:
        raise DataError(
            "compare: the runs have no measured row in common: expected the same ops, formats, sizes and threads"
        )
    witnesses = [*across(before[-1], after), *limits(before[-1], after)]
    shift = statistics.median(witnesses) if len(witnesses) >= ENOUGH else 0.0
    apart = [w - shift for w in across(before[-1], after)] + list(among(earlier.values()))
    if len(apart) < ENOUGH:  # nothing to go by but the rows themselves, of which most did not change
        logs = [_agreed(rows, row) for rows, row in pairs]
        apart = [x - statistics.median(logs) for x in logs]
    alike = max(ALIKE, spread(apart) / math.sqrt(2))  # of one run
    sigmas = statistics.NormalDist().inv_cdf(1 - CHANCE / 2 / len(pairs))
    is_busy = any(record.busy for record in (*before, after))
    changes = [_judged(rows, row, shift, alike, sigmas, is_busy=is_busy) for rows, row in pairs]
    return Comparison(tuple(changes), alike, len(apart), math.exp(shift), tuple(_others(earlier, after)),
                      tuple(_mind(before[-1], after)))  # fmt: skip


def in_turns(pair: Pair) -> Comparison:
    """Every row that both versions measured. DataError if there is none."""
    earlier = {row.key: row for row in pair.before.rows}
    both = [
        (earlier[row.key], row)
        for row in pair.after.rows
        if row.contender == OURS and row.key in earlier and timed(row)
    ]
    both = [(old, row) for old, row in both if timed(old)]
    if not both:
        why = next((f": {row.reason}" for row in (*pair.before.rows, *pair.after.rows) if row.reason), "")
        raise DataError(f"compare: no row was measured in both versions{why}")
    changes = []
    for old, row in both:
        assert old.time is not None
        assert row.time is not None
        log, reach = paired.interval(paired.differences(old.time, row.time, pair.turns), len(both))
        needed = max(math.log1p(LEAST), reach)
        verdict: Verdict = "none" if abs(log) < needed else "slower" if log > 0 else "faster"
        changes.append(Change(old, row, math.exp(log), reach, math.exp(min(needed, UNKNOWN)), verdict))
    others = _others({key: [row] for key, row in earlier.items()}, pair.after)
    mind = tuple(text for text in _mind(pair.before, pair.after) if not text.startswith("before"))
    return Comparison(tuple(changes), 0.0, 0, 1.0, tuple(others), mind, pair.find)


def across(before: Record, after: Record) -> Iterable[float]:
    """Logarithms of the ratios of peers whose version is the same in both runs."""
    known = {row.key: row for row in before.rows if timed(row) and row.contender != OURS}
    for row in after.rows:
        old = known.get(row.key)
        if old is not None and timed(row) and _version(before, row) == _version(after, row):
            yield _agreed([old], row)


def _version(record: Record, row: Row) -> str | None:
    """Of a peer: packages are called as they are installed, peers as they are spoken of."""
    return next(
        (v for name, v in record.versions.items() if name.lower() == row.contender.lower().replace(" ", "")), None
    )


def limits(before: Record, after: Record) -> Iterable[float]:
    """Logarithms of the ratios of the machine's limits, each once; as times, so above 0 where a limit sank."""
    known = {row.key: row.limit for row in before.rows if row.limit}
    found = set()
    for row in after.rows:
        old = known.get(row.key)
        if row.limit and old:
            found |= {pair for pair in ((old.flops, row.limit.flops), (old.bytes, row.limit.bytes)) if all(pair)}
    return [math.log(a / b) for a, b in found if a and b]


def among(rows: Iterable[Sequence[Row]]) -> Iterable[float]:
    """Logarithms of the ratios of the same row in any two of the runs before."""
    for same in rows:
        for one, other in itertools.combinations(filter(timed, same), 2):
            yield _agreed([one], other)


def spread(values: Sequence[float]) -> float:
    """The standard deviation that values around 0 have, from their middle and, of many, from their tails, whichever is more."""
    sizes = sorted(map(abs, values))
    if not sizes:
        return 0.0
    from_middle = OF_DEVIATION * statistics.median(sizes)
    return from_middle if len(sizes) < TAILS else max(from_middle, sizes[int(0.95 * (len(sizes) - 1))] / 1.96)


def quickest(time: Time) -> list[float]:
    """Logarithms of the shortest samples of the FEW quickest rounds, in rising order; of a run in one round, of parts of it."""
    rounds: Sequence[Sequence[float]] = time.rounds
    if len(rounds) == 1:
        (samples,) = rounds
        size = max(1, len(samples) // BATCHES)
        rounds = [samples[i : i + size] for i in range(0, len(samples), size)]
    return sorted(math.log(min(one)) for one in rounds)[:FEW]


def agreed(before: Time, after: Time) -> float:
    """The logarithm of the change that the quickest rounds agree on, each with its like; 0 where they contradict each other."""
    logs = [new - old for old, new in zip(quickest(before), quickest(after), strict=False)]
    return 0.0 if min(logs) < 0 < max(logs) else min(logs, key=abs)


def standard_error(time: Time) -> float:
    """Of the logarithm of a time: from how far its quickest rounds lie apart."""
    found = quickest(time)
    return OF_REACH * (found[-1] - found[0]) if len(found) == FEW else ALIKE


def is_apart(before: Time, after: Time) -> bool:
    """Whether the noise of two runs lies apart: their quickest rounds, or of a run in one round its samples as well."""
    old, new = quickest(before), quickest(after)
    in_rounds = min(len(before.rounds), len(after.rounds)) > 1
    return (old[-1] < new[0] or new[-1] < old[0]) and (in_rounds or after.differs(before))


def _judged(rows: Sequence[Row], row: Row, shift: float, alike: float, sigmas: float, *, is_busy: bool) -> Change:
    times = [r.time for r in rows if r.time]
    assert row.time is not None
    log = _agreed(rows, row) - shift
    inside = [standard_error(t) ** 2 for t in times]
    own = standard_error(row.time) ** 2 + statistics.fmean(inside) / len(times)
    noise = math.sqrt(own + alike**2 * (1 + 1 / len(times)))
    needed = max(math.log1p(LEAST), sigmas * noise)
    apart = all(is_apart(row.time, t) for t in times)
    verdict: Verdict = "none"
    if abs(log) >= needed and apart:
        verdict = "unsure" if is_busy else "slower" if log > 0 else "faster"
    return Change(rows[-1], row, math.exp(log), noise, math.exp(needed), verdict)


def _others(earlier: dict[Key, list[Row]], after: Record) -> Iterable[tuple[Row, str]]:
    """What is no longer measured, or only now; what is less exact or takes more memory."""
    now = {row.key: row for row in after.rows}
    for key, rows in earlier.items():
        row, old = now.get(key), rows[-1]
        if row is None or row.contender != OURS:
            continue
        if timed(old) and not timed(row):
            yield row, f"{row.state}: {row.reason}" if row.reason else row.state
        elif timed(row) and not timed(old):
            yield row, f"measured now; before: {old.state}"
        elif timed(row):
            if row.rung != old.rung:
                yield row, f"kernel: {old.rung}, now {row.rung}"
            was, now_is = (r.error.relative if r.error else None for r in (old, row))
            if _more(was, now_is, WORSE):
                yield row, f"error: {was:.3g}, now {now_is:.3g}"
            if _more(old.memory, row.memory, WIDER):
                yield row, f"peak memory: {old.memory} bytes, now {row.memory}"


def _more(old: float | None, new: float | None, factor: float) -> bool:
    return old is not None and new is not None and new > factor * old


def _mind(before: Record, after: Record) -> Iterable[str]:
    """Why two runs may not be comparable."""
    for name, old, new in (("processor", before.machine.get("cpu"), after.machine.get("cpu")),
                           ("cores", before.machine.get("cores"), after.machine.get("cores")),
                           ("threads", before.threads, after.threads),
                           *((name, before.settings.get(name), after.settings.get(name)) for name in ("rounds", "samples"))
                           ):  # fmt: skip
        if old != new:
            yield f"not the same {name}: {old} before, {new} after"
    for record, when in ((before, "before"), (after, "after")):
        if record.busy:
            yield f"{when}: {record.busy}"
        if record.ended is None:
            yield f"{when}: the run has not come to its end"


def timed(row: Row) -> bool:
    """Whether a row has a time that is to be trusted."""
    return row.state == "measured" and row.time is not None


def _agreed(before: Sequence[Row], after: Row) -> float:
    """Of a row with those of the runs before: the middle of them."""
    return statistics.median(agreed(row.time, after.time) for row in before if row.time and after.time)


__all__ = [
    "Change",
    "Comparison",
    "across",
    "agreed",
    "among",
    "compare",
    "in_turns",
    "is_apart",
    "limits",
    "quickest",
    "spread",
    "standard_error",
    "timed",
]
