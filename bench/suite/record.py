"""What a run leaves behind: one Row for each contender in each cell (op, format, size), and the circumstances of the run.

Reports and comparisons read these files and nothing else. Times are in seconds, sizes in bytes, rates per second.
"""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from ulpgrad.errors import DataError
from ulpgrad.io.atomic import atomic_write

KIND = "ulpgrad-bench"
VERSION = 2  # 1: times without rounds
OURS = "ulpgrad"
ABOVE = 1.05  # of the measured limit, whose own noise is in it: what lies above was not measured right
LOW, HIGH = 0.2, 0.8  # the quantiles that stand for the noise of samples

State = Literal["measured", "refused", "missing", "failed", "too large"]
Bound = Literal["arithmetic", "memory"]


@dataclass(frozen=True)
class Time:
    """Seconds of one call: the median, the 20th and 80th percentile, and every sample in the order in which it was taken.
    `sizes`: how many of them each round of the run took."""

    median: float
    p20: float
    p80: float
    samples: tuple[float, ...]
    sizes: tuple[int, ...] = ()

    @classmethod
    def of(cls, samples: Sequence[float], sizes: Sequence[int] = ()) -> Time:
        ordered = sorted(samples)
        low, high = (ordered[round(q * (len(ordered) - 1))] for q in (LOW, HIGH))
        return cls(statistics.median(ordered), low, high, tuple(samples), tuple(sizes) or (len(ordered),))

    @property
    def rounds(self) -> tuple[tuple[float, ...], ...]:
        """The samples of each round."""
        ends = list(itertools.accumulate(self.sizes or (len(self.samples),)))
        return tuple(self.samples[end - size : end] for end, size in zip(ends, self.sizes or ends, strict=True))

    def joined(self, later: Time) -> Time:
        """With the rounds of another."""
        sizes = (len(one) for one in (*self.rounds, *later.rounds))
        return Time.of(self.samples + later.samples, tuple(sizes))

    def differs(self, other: Time) -> bool:
        """Whether the intervals of noise lie apart. What is inside them is no difference."""
        return self.p80 < other.p20 or other.p80 < self.p20


@dataclass(frozen=True)
class Limit:
    """What the machine does at most, measured in the same run; None where it has no such unit."""

    flops: float | None
    bytes: float | None


@dataclass(frozen=True)
class Error:
    """Against float64.

    `relative`: norm of the difference over the norm of the exact result, operands taken as they are stored; `whole`: the same
    with what the operands lost when they were stored. `ulps`: the largest difference in units in the last place of the result's
    format. `histogram`: (low, high, count) of those differences, low < ulps <= high, in rising order; the first is 0 to 0.
    None where a difference is not a number (an infinity for a finite value).
    """

    relative: float | None
    whole: float | None
    ulps: float | None
    histogram: tuple[tuple[float, float, int], ...] = ()


@dataclass(frozen=True)
class Range:
    """Shares of the results that left the format at the top (infinite or saturated) or at the bottom (zero, but not exactly)."""

    overflowed: float
    underflowed: float


@dataclass(frozen=True)
class Row:
    """One contender in one cell.

    `size` is what the op's standard problem counts (`counts` says what), None where the op has one problem only; `call` is the
    call in one line. `contender`: "ulpgrad" or a peer's name; `rung`: of ours, `chosen` where dispatch takes it by itself.
    `reason`: why the row was not measured, or is not to be trusted. `first`: seconds of the first call. `flops`, `bytes`: of
    one call; `bound`: which limit is nearer; `share`: of that limit (0 to 1). `memory`: peak bytes that the call takes beyond
    its operands. `bits`: of a stored value; `traffic`: bytes of operands and results where each value takes just its bits.
    `energy`: joules of a call, None where the machine does not tell.
    """

    op: str
    format: str
    size: int | None
    device: str
    contender: str
    rung: str | None
    threads: int
    state: State
    reason: str = ""
    chosen: bool = False
    call: str = ""
    counts: str = ""
    time: Time | None = None
    first: float | None = None
    flops: float | None = None
    bytes: float | None = None
    limit: Limit | None = None
    bound: Bound | None = None
    share: float | None = None
    memory: int | None = None
    bits: float | None = None
    traffic: float | None = None
    error: Error | None = None
    range: Range | None = None
    energy: float | None = None

    @property
    def cell(self) -> tuple[str, str, int | None, str, int]:
        """What contenders are compared in: op, format, size, device, threads."""
        return self.op, self.format, self.size, self.device, self.threads

    @property
    def key(self) -> tuple[str, str, int | None, str, int, str, str | None]:
        """What is the same thing in another run; the rung of the contender that dispatch chose is not part of it."""
        return *self.cell, self.contender, None if self.chosen else self.rung

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Row:
        """What `as_data` wrote. DataError where a field is missing, unknown or of another kind."""
        made = dict(data)
        try:
            for name, kind in PARTS.items():
                if made.get(name) is not None:
                    made[name] = kind(**{key: _tuples(value) for key, value in made[name].items()})
            row = cls(**made)
        except (TypeError, AttributeError) as error:
            raise DataError(f"a row is not as it should be ({error}): {json.dumps(data)[:200]}") from None
        if row.state not in get_args(State):
            raise DataError(f"state {row.state!r} of {row.op}: expected one of {', '.join(get_args(State))}")
        return row

    def as_data(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


PARTS: dict[str, Any] = {"time": Time, "limit": Limit, "error": Error, "range": Range}


@dataclass(frozen=True)
class Record:
    """A run: how it was called, where and when, and its rows. `ended` is None while it has not come to its end.

    `busy`: a sentence where other programs took part of the machine. `settings`: what the command meant, in full.
    """

    command: str
    commit: str | None
    machine: dict[str, Any]
    versions: dict[str, str | None]
    threads: int
    started: str
    ended: str | None = None
    busy: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()

    @classmethod
    def from_data(cls, data: Any, name: str = "the record") -> Record:
        """What `as_data` wrote. DataError for another kind of file, a newer version, or what is not as it should be."""
        if not isinstance(data, dict) or data.get("kind") != KIND:
            raise DataError(f"{name}: not a benchmark record: expected a file that `ulpgrad bench --json` wrote")
        version = data.get("version")
        if not isinstance(version, int) or version > VERSION:
            raise DataError(f"{name}: version {version} of the record; this ulpgrad reads up to {VERSION}: update it")
        made = {key: value for key, value in data.items() if key not in ("kind", "version")}
        wanted = {f.name for f in fields(cls)}
        if set(made) != wanted:
            odd = ", ".join(sorted(wanted ^ set(made)))
            raise DataError(f"{name}: fields missing or unknown: {odd}; the file is cut short or was changed by hand")
        try:
            return cls(**{**made, "rows": tuple(Row.from_data(row) for row in made["rows"])})
        except DataError as error:
            raise DataError(f"{name}: {error}") from None

    def as_data(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {"kind": KIND, "version": VERSION, **{f.name: getattr(self, f.name) for f in fields(self)},
                "rows": [row.as_data() for row in self.rows]}  # fmt: skip


def read(path: Path) -> Record:
    """A record from its file. DataError if it is missing, no JSON, of another kind, or newer than this version."""
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise DataError(f"{path}: no JSON ({error}); expected a file that `ulpgrad bench --json` wrote") from None
    return Record.from_data(data, str(path))


def write(path: Path, record: Record) -> None:
    """The whole record or nothing; what was there before stays if it fails. DataError if it cannot be written."""
    with atomic_write(path, text=True) as file:
        json.dump(record.as_data(), file, allow_nan=False, separators=(",", ":"))
        file.write("\n")


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


__all__ = [
    "KIND",
    "OURS",
    "VERSION",
    "Bound",
    "Error",
    "Limit",
    "Range",
    "Record",
    "Row",
    "State",
    "Time",
    "read",
    "write",
]
