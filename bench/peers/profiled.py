"""Where the time of a training step goes: its kernels, what the machine's limits allow them, and what lies between."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ulpgrad as ug
from ulpgrad.bench import roofline, timing
from ulpgrad.bench.peers import steps, table
from ulpgrad.profile import Kind

STEPS: dict[str, Callable[[Any], steps.Step]] = {
    "mlp": steps.mlp,
    "cnn": steps.cnn,
    "transformer": steps.transformer,
}
WARM, SAMPLES, QUICK_SAMPLES = 3, 15, 3
MOST = 12  # lines of a table; the rest is one more
COLUMNS = ("op", "kernel", "calls", "time", "of the step", "the limit allows", "operands")
RIGHT = COLUMNS[2:6]


@dataclass(frozen=True)
class Line:
    """Calls of a step that are alike: seconds of all of them, and the least that the machine's limits allow."""

    op: str
    kernel: str
    operands: str
    calls: int
    seconds: float
    least: float


@dataclass(frozen=True)
class Step:
    """`seconds`: of a step that nobody listens to; `lines`: medians over profiled ones."""

    name: str
    seconds: float
    lines: tuple[Line, ...]

    @property
    def in_kernels(self) -> float:
        return sum(line.seconds for line in self.lines)

    def as_data(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Step:
        return cls(data["name"], data["seconds"], tuple(Line(**line) for line in data["lines"]))


def run(words: str, threads: int, *, quick: bool = False) -> list[Step]:
    """Profile every step that has all these words in its name, on CPU threads."""
    names = table.chosen(words, list(STEPS))
    table.measure_limits(threads)
    with table.threads(threads):
        return [of(name, QUICK_SAMPLES if quick else SAMPLES) for name in names]


def of(name: str, samples: int) -> Step:
    step = STEPS[name](ug)
    for _ in range(WARM):
        step()
    seconds = timing.measure(step, samples).median
    profiles = []
    for _ in range(samples):
        with ug.profile() as found:
            step()
        profiles.append({_key(kind): kind for kind in found.kinds()})
    lines = [line([p[key] for p in profiles if key in p]) for key in profiles[-1]]
    return Step(name, seconds, tuple(sorted(lines, key=lambda one: -one.seconds)))


def line(kinds: Sequence[Kind]) -> Line:
    """The same calls in several profiles."""
    one = kinds[-1].first
    seconds = statistics.median(kind.seconds for kind in kinds)
    peak_flops = roofline.arithmetic(one.op.family, one.counted, one.counted) if one.flops else None
    limit = roofline.Roofline(one.flops, one.bytes, peak_flops, roofline.memory(one.bytes, one.written))
    calls = len(kinds[-1].calls)
    return Line(one.op.name, one.rung.name, " ".join(one.operands), calls, seconds, calls * limit.seconds)


def rows(step: Step) -> list[tuple[str, ...]]:
    """A line for each kind of call, the rest of them together, and what lies between kernels."""
    shown = [
        _row(step, (one.op, one.kernel, str(one.calls)), one.seconds, one.least, one.operands)
        for one in step.lines[:MOST]
    ]
    if rest := step.lines[MOST:]:
        calls = str(sum(one.calls for one in rest))
        shown.append(_row(step, ("others", "", calls), sum(r.seconds for r in rest), sum(r.least for r in rest), ""))
    between = step.seconds - step.in_kernels
    calls = str(sum(one.calls for one in step.lines))
    shown.append(_row(step, ("all kernels", "", calls), step.in_kernels, sum(one.least for one in step.lines), ""))
    return [
        *shown,
        _row(step, ("between them", "", ""), between, None, ""),
        _row(step, ("the step", "", ""), step.seconds, None, ""),
    ]


def _key(kind: Kind) -> tuple[Any, ...]:
    return kind.first.op.name, kind.first.rung.name, kind.first.operands


def _row(
    step: Step, names: tuple[str, str, str], seconds: float, least: float | None, operands: str
) -> tuple[str, ...]:
    allowed = "" if least is None else f"{least / seconds:.0%}"
    return (*names, f"{seconds * 1e6:.0f} us", f"{seconds / step.seconds:.0%}", allowed, operands)


__all__ = ["COLUMNS", "RIGHT", "STEPS", "Line", "Step", "rows", "run"]
