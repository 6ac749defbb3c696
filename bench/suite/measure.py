"""Measure one cell: all contenders in turns, on operands that do not stay in the cache, their outputs checked afterwards."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from ulpgrad.bench import energy as picojoules, machine, peak, roofline, shapes
from ulpgrad.bench.roofline import Roofline
from ulpgrad.bench.suite import exact
from ulpgrad.bench.suite.contenders import Contender, Refusal, Results, Task
from ulpgrad.bench.suite.meter import Energy, peak_bytes
from ulpgrad.bench.suite.record import OURS, Limit, Row, Time
from ulpgrad.bench.suite.rounds import judged
from ulpgrad.bench.timing import REST, SAMPLE, seconds
from ulpgrad.errors import FormatError, UlpgradError
from ulpgrad.formats import Format

BUDGET = 1.0  # seconds for the samples of one contender, in all rounds
FEWEST = 3
VISITS = 4  # times that each contender has its turn, so that a disturbance does not meet one alone
SPREAD = (
    0.25  # seconds over which the turns of a cell lie at least: neighbours on the same core come and go within them
)
BRIEF = 0.1  # the same of a quick run, whose few samples say little about noise anyway
QUICK = 6  # samples of such a run
WARM = 0.02  # seconds of calls before the first sample: memory of operands and results that nobody has touched is slow
COPIES = 64  # of the operands, at most
PAST_CACHES = 3  # times the last cache that the copies fill together
TRIES = 3  # times that limits are measured again when something is above them
SLOW_REFERENCE = 1.5  # seconds: a slower one is not run again for operands before they were stored

SAMPLES_OF_TURN = 3  # where turns are told from outside: the shortest of them is what counts

Told = Callable[[str], None]


@dataclass(frozen=True)
class Turns:
    """Turns that begin when somebody says so, between which another version of the code is measured. `wait` returns then."""

    count: int
    wait: Callable[[], None]


@dataclass
class Turn:
    """A contender while it is measured: its calls, each on operands of its own, and the results they left."""

    one: Contender
    calls: list[Callable[[], Any]]
    first: float
    memory: int | None
    repeats: int
    count: int
    kept: list[Any]
    position: int = 0
    times: list[float] = field(default_factory=list)
    joules: list[float | None] = field(default_factory=list)

    def sample(self, energy: Energy) -> None:
        """Seconds of a call, over `repeats` of them. Results are kept until their place is needed, so that the memory of
        results rotates as well."""
        size = len(self.calls)
        order = [((self.position + i) % size, self.calls[(self.position + i) % size]) for i in range(self.repeats)]
        self.position = (self.position + self.repeats) % size
        kept, before = self.kept, energy.read()
        start = time.perf_counter()
        for i, call in order:
            kept[i] = call()
        self.times.append((time.perf_counter() - start) / self.repeats)
        joules = energy.joules(before, energy.read())
        self.joules.append(None if joules is None else joules / self.repeats)


def cell(
    task: Task, contenders: Sequence[Contender | Refusal], threads: int, samples: int, told: Told = lambda name: None,
    rounds: int = 1, number: int = 0, turns: Turns | None = None,
) -> list[Row]:  # fmt: skip
    """A row for each contender, in their order. `told` is called with the name of the one whose turn begins. `samples`: of
    all rounds, of which this is the one with the number; after the first (0), errors and memory are known. With `turns`, each
    has as many samples in every one of them."""
    start = _start(task, threads)
    refused = {id(c): replace(start, contender=c.name, rung=c.rung, state=c.state, reason=c.reason)
               for c in contenders if isinstance(c, Refusal)}  # fmt: skip
    with np.errstate(all="ignore"):
        rows = _measured(
            task, [c for c in contenders if isinstance(c, Contender)], start, samples, told, rounds, number, turns
        )
    return [refused.get(id(c)) or rows[id(c)] for c in contenders]


def _start(task: Task, threads: int) -> Row:
    c, form = task.cell, task.form
    counted = shapes.shape_of(task.op)
    return Row(c.op, c.format, c.size, c.device, "", None, threads, "measured", call=_call(task),
               counts=counted.counts if counted else "", bits=_bits(form))  # fmt: skip


def _measured(
    task: Task, contenders: list[Contender], start: Row, samples: int, told: Told, rounds: int, number: int,
    given: Turns | None,
) -> dict[int, Row]:  # by id of the contender  # fmt: skip
    rows: dict[int, Row] = {}
    turns: list[Turn] = []
    roof: Roofline | None = None
    for one in contenders:
        told(one.label)
        base = replace(start, contender=one.name, rung=one.rung, chosen=one.chosen)
        try:
            turn, returned = warm(one)
            if roof is None:
                results = _results(task, returned if one.name == OURS else None)
                roof, copies = _roof(task, results)
            turns.append(ready(turn, copies, samples, rounds, weighed=number == 0))
        except NotImplementedError:
            rows[id(one)] = replace(
                base, state="refused", reason=f"{one.name} does not compute this in {task.form.name}"
            )
        except Exception as error:  # whatever a kernel or a peer throws becomes a row
            rows[id(one)] = replace(base, state="failed", reason=reason(error))
    for t, thrown in _taken(task, turns, told, given, BRIEF if samples <= QUICK else SPREAD):
        rows[id(t.one)] = replace(start, contender=t.one.name, rung=t.one.rung, chosen=t.one.chosen, state="failed",
                                  reason=reason(thrown))  # fmt: skip
        turns.remove(t)
    if roof is not None:
        roof = _raised(roof, [t.times for t in turns], partial(_limits, task, results, copies))
    expected, whole = (task.expected, None) if number else _expected(task)
    for t in turns:
        base = replace(start, contender=t.one.name, rung=t.one.rung, chosen=t.one.chosen)
        rows[id(t.one)] = _row(task, t, base, roof, expected, whole, judges=number == 0)
    return rows


def _taken(
    task: Task, turns: Sequence[Turn], told: Told, given: Turns | None, spread: float
) -> list[tuple[Turn, Exception]]:
    """Take all samples, in turns spread over so many seconds; who fails in one has no more of them, and is returned."""
    energy = Energy()
    several = len({t.one.name for t in turns}) > 1
    before = ""
    lost: dict[int, tuple[Turn, Exception]] = {}
    visits = given.count if given else VISITS
    if given:
        for t in turns:
            t.count = visits * (SAMPLES_OF_TURN if t.count >= visits * SAMPLES_OF_TURN else 1)
    for visit in range(visits):
        for t in random.sample(turns, len(turns)):
            count = t.count * (visit + 1) // visits - t.count * visit // visits
            if id(t) in lost or not count:
                continue
            told(t.one.label)
            spins = several and t.one.name != before and task.op.family in roofline.DOTS
            if given:
                given.wait()
            else:
                time.sleep(REST if spins else spread / visits / len(turns))
            before = t.one.name
            try:
                t.kept[t.position] = t.calls[t.position]()
                for _ in range(count):
                    t.sample(energy)
            except Exception as error:
                lost[id(t)] = t, error
    return list(lost.values())


def warm(one: Contender) -> tuple[Turn, Any]:
    """The first call, and what it returned."""
    call = partial(one.call, *one.operands())
    begin = time.perf_counter()
    returned = call()
    first = time.perf_counter() - begin
    return Turn(one, [call], one.first or first, None, 1, 1, [None]), returned


def ready(turn: Turn, copies: int, samples: int, rounds: int = 1, *, weighed: bool = True) -> Turn:
    """Its memory, its further operands, and how often it is called in this of several rounds."""
    one = turn.one
    turn.memory = peak_bytes(turn.calls[0], counted=one.counted) if weighed else None
    once = seconds(turn.calls[0])
    turn.calls += [partial(one.call, *one.operands()) for _ in range(copies - 1)]
    turn.kept = [None] * copies
    if once < WARM:
        end = time.perf_counter() + WARM
        for i, call in enumerate(turn.calls):
            if time.perf_counter() < end:
                turn.kept[i] = call()
        once = min(once, seconds(turn.calls[0]))
    turn.repeats = max(1, round(SAMPLE / max(once, 1e-8)))
    fits = int(BUDGET / max(once * turn.repeats, SAMPLE))
    turn.count = math.ceil(max(FEWEST, min(samples, fits)) / rounds)
    return turn


def _results(task: Task, returned: Any) -> tuple[Any, ...]:
    """What a call makes: what it writes in place, or what it returned, where that is known."""
    if task.op.mutates:
        return task.op.mutated(task.problem.arrays)
    several = returned if isinstance(returned, tuple) else (returned,)
    return tuple(np.asarray(getattr(r, "storage", r)) for r in several if r is not None)


def _roof(task: Task, results: tuple[Any, ...]) -> tuple[Roofline, int]:
    """The limits for a task, and how many copies of its operands leave the caches where memory is the nearer one."""
    problem = task.problem
    last = max((size for size, _ in machine.cache_bytes().values()), default=32 << 20)
    size = max(1, sum(a.nbytes for a in (*problem.arrays, *results) if a is not None))
    room = (machine.memory() or 1 << 32) // 32
    copies = max(1, min(COPIES, 1 + PAST_CACHES * last // size, room // size))
    rotated = _limits(task, results, copies)
    return (rotated, copies) if rotated.bound == "memory" else (_limits(task, results, 1), 1)


def _limits(task: Task, results: tuple[Any, ...], copies: int) -> Roofline:
    """The roofline; a format with arithmetic of its own moves its own bits, not those of the kernels' format."""
    roof = roofline.of(task.problem, results, copies)
    return replace(roof, bytes=_traffic(task, results)) if task.form.routed else roof


def _raised(roof: Roofline, times: Sequence[Sequence[float]], again: Callable[[], Roofline]) -> Roofline:
    """Limits measured again where somebody is above them: other programs may have taken part of the machine at first."""
    fastest = min((Time.of(t).median for t in times), default=roof.seconds)
    for _ in range(TRIES):
        if roof.seconds <= fastest:
            break
        peak.forget()
        now = again()
        flops = None if roof.peak_flops is None else max(roof.peak_flops, now.peak_flops or 0.0)
        roof = replace(roof, peak_flops=flops, peak_bytes=max(roof.peak_bytes, now.peak_bytes))
    return roof


def _expected(task: Task) -> tuple[Results, Results | None]:
    """The exact results, and those of the operands before they were stored."""
    begin = time.perf_counter()
    expected = task.expected
    slow = time.perf_counter() - begin > SLOW_REFERENCE
    if slow or task.form.kind in ("integer", "bool") or task.op.mutates:
        return expected, None
    return expected, task.reference(task.sample.arrays)


def _row(
    task: Task, t: Turn, base: Row, roof: Roofline | None, expected: Results, whole: Results | None, *, judges: bool
) -> Row:
    assert roof is not None
    spent = Time.of(t.times)
    limit = Limit(roof.peak_flops, roof.peak_bytes)
    joules = [j for j in t.joules if j is not None]
    row = replace(
        base, time=spent, first=t.first, flops=roof.flops, bytes=roof.bytes, limit=limit,
        memory=t.memory, traffic=_traffic(task, expected), energy=sum(joules) / len(joules) if joules else None,
    )  # fmt: skip
    try:
        returned = t.one.call(*t.one.operands()) if task.op.mutates else _last(t)
        got = t.one.values(returned)
    except Exception as error:
        return replace(base, state="failed", reason=reason(error))
    forms = task.returned(returned)
    for g, e, f in zip(got, expected, forms, strict=False):
        if g is not None and (why := exact.wrong(g, e, f)) is not None:
            return replace(base, state="failed", reason=why)  # how fast it was wrong is nobody's business
    row = judged(row)
    main = got[0] if got else None
    if (
        row.state == "failed" or not judges or main is None
    ):  # None: random numbers of its own, or a result it does not give
        return row
    if whole is not None and whole[0].shape != expected[0].shape:  # equal values are one, once they are rounded
        whole = None
    before = expected[0] if whole is None else whole[0]
    found = exact.error(main, expected[0], None if whole is None else before, forms[0], _magnitude(task))
    is_real = forms[0].kind not in ("integer", "bool")
    return replace(row, error=found, range=exact.left(main, before, forms[0]) if is_real else None)


def _magnitude(task: Task) -> Any:
    """Of what was added up, for the first result."""
    if task.op.magnitude is None:
        return None
    found = task.op.magnitude(*task.exact, **task.params)
    return found[0] if isinstance(found, tuple) else found


def _last(t: Turn) -> Any:
    """A result of a timed call."""
    return next(result for result in reversed(t.kept) if result is not None)


def reason(error: BaseException) -> str:
    """What was thrown, in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UlpgradError) else f"{type(error).__name__}: {text}"[:300]


def _bits(form: Format) -> float:
    try:
        return float(picojoules.stored_bits(form))
    except FormatError:
        return float(form.bits)


def _traffic(task: Task, expected: Results) -> float:
    """Bytes of operands and results where each value takes its format's bits."""
    operands = zip(task.problem.arrays, task.problem.formats, strict=True)
    values = [(a.size, f) for a, f in operands if a is not None and f is not None]
    values += [(r.size, f) for r, f in zip(expected, task.formats, strict=False)]
    return sum(float(n) * _bits(task.form if task.form.routed and f.kind == "float" else f) for n, f in values) / 8


def _call(task: Task) -> str:
    made = task.problem.call
    return made.replace(str(task.problem.formats[0]), task.cell.format) if task.form.routed else made


__all__ = ["Turns", "cell", "ready", "reason", "warm"]
