"""What the rows of a run say: cells and their winners, rates, ratios and whether they lie beyond the noise."""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ulpgrad.bench.suite.record import OURS, Record, Row
from ulpgrad.bench.timing import readable
from ulpgrad.errors import DataError


@dataclass(frozen=True)
class Cell:
    """One op in one format and size: everyone's rows, in the order of the record."""

    rows: tuple[Row, ...]

    @property
    def op(self) -> str:
        return self.rows[0].op

    @property
    def format(self) -> str:
        return self.rows[0].format

    @property
    def size(self) -> int | None:
        return self.rows[0].size

    @property
    def name(self) -> str:
        """In one line: "matmul float32, 1024"."""
        return f"{self.op} {self.format}" + ("" if self.size is None else f", {self.size}")

    @cached_property
    def measured(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.state == "measured" and row.time is not None)

    @cached_property
    def ours(self) -> Row | None:
        """The rung that dispatch takes; where it was not measured, the fastest that was."""
        own = [row for row in self.measured if row.contender == OURS]
        return next((row for row in own if row.chosen), min(own, key=seconds, default=None))

    @cached_property
    def peers(self) -> tuple[Row, ...]:
        return tuple(row for row in self.measured if row.contender != OURS)

    @cached_property
    def best(self) -> Row | None:
        """The fastest peer."""
        return min(self.peers, key=seconds, default=None)

    @property
    def ratio(self) -> float | None:
        """The fastest peer's time over ours: above 1 where we are faster."""
        return seconds(self.best) / seconds(self.ours) if self.ours and self.best else None

    @property
    def is_beyond_noise(self) -> bool:
        """Whether the intervals of both lie apart."""
        pair = self.ours, self.best
        return all(pair) and pair[0].time.differs(pair[1].time)  # type: ignore[union-attr, arg-type]


def cells(rows: Iterable[Row]) -> list[Cell]:
    """Rows by what they are compared in, in the order of the record."""
    found: dict[object, list[Row]] = {}
    for row in rows:
        found.setdefault(row.cell, []).append(row)
    return [Cell(tuple(group)) for group in found.values()]


def together(runs: Sequence[Record]) -> Record:
    """Several runs on one machine as one, for a page of all of them; of a row in two of them the later one counts. DataError for
    runs that do not belong together."""
    first = runs[0]
    for run in runs[1:]:
        for name in ("machine", "versions", "threads", "commit"):
            if getattr(run, name) != getattr(first, name):
                raise DataError(
                    f"runs of one page must share {name}: {getattr(first, name)} and {getattr(run, name)} do not"
                )
    rows = {row.key: row for run in runs for row in run.rows}
    return replace(
        first, command=" && ".join(run.command for run in runs), started=min(run.started for run in runs),
        ended=max((run.ended for run in runs if run.ended), default=None) if all(run.ended for run in runs) else None,
        busy=next((run.busy for run in runs if run.busy), None), rows=tuple(rows.values()),
    )  # fmt: skip


def seconds(row: Row | None) -> float:
    """Of a measured row."""
    assert row is not None
    assert row.time is not None
    return row.time.median


def rate(row: Row) -> tuple[float, str] | None:
    """Operations or bytes a second, whichever is nearer its limit, and the unit's name; None where neither is counted."""
    amount, unit = (row.flops, "GFLOP/s") if row.bound == "arithmetic" else (row.bytes, "GB/s")
    return (amount / seconds(row) / 1e9, unit) if row.time is not None and amount else None


def is_suspect(row: Row) -> bool:
    """Whether a row has a time that is not to be trusted: it claims more than the machine can do."""
    return row.time is not None and row.state != "measured"


def mean_ratio(found: Sequence[Cell], peer: str) -> tuple[float, int] | None:
    """The geometric mean of a peer's time over ours, and over how many cells."""
    logs = [
        math.log(seconds(row) / seconds(cell.ours))
        for cell in found for row in cell.peers
        if row.contender == peer and cell.ours is not None
    ]  # fmt: skip
    return (math.exp(statistics.fmean(logs)), len(logs)) if logs else None


def peers(found: Sequence[Cell]) -> list[str]:
    """Names of all peers that were measured."""
    return list(dict.fromkeys(row.contender for cell in found for row in cell.peers))


def command(record: Record, rows: Sequence[Row]) -> str:
    """What measures these rows again, and nothing else."""
    words = [
        "ulpgrad",
        "bench",
        ",".join(dict.fromkeys(row.op for row in rows)),
        "--formats",
        ",".join(dict.fromkeys(row.format for row in rows)),
    ]
    sizes = [str(size) for size in dict.fromkeys(row.size for row in rows) if size is not None]
    words += ["--sizes", ",".join(sizes)] if sizes else []
    others = dict.fromkeys(row.contender for row in rows if row.contender != OURS)
    words += ["--peers", ",".join(others)] if others else []
    return shlex.join([*words, "--threads", str(record.threads)])


# As one reads it


def interval(row: Row) -> str:
    """The noise of a time, from the 20th to the 80th percentile, in one unit."""
    assert row.time is not None
    low, high = readable(row.time.p20), readable(row.time.p80)
    same = low.split()[1] == high.split()[1]
    return f"{low.split()[0] if same else low} – {high}"


def figure(value: float | None) -> str:
    """Three digits."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def times(value: float | None) -> str:
    """A ratio."""
    return "" if value is None else f"{value:,.0f}x" if value >= 100 else f"{value:.2f}x"


def size_of(count: float | None) -> str:
    """Bytes, with a unit."""
    if count is None:
        return ""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"


def joules(value: float | None) -> str:
    if value is None:
        return ""
    unit, scale = next(((u, s) for u, s in (("J", 1.0), ("mJ", 1e-3)) if value >= s), ("µJ", 1e-6))
    return f"{value / scale:.3g} {unit}"


def many(count: int, thing: str) -> str:
    """1 op, 2 ops."""
    return f"{count} {thing}{'s' * (count != 1)}"


def size_text(size: int | None) -> str:
    return "" if size is None else str(size)


__all__ = ["Cell", "cells", "command", "figure", "interval", "is_suspect", "joules", "many", "mean_ratio", "peers", "rate",
           "seconds", "size_of", "size_text", "times", "together"]  # fmt: skip
