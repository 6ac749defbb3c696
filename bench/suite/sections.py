"""The sections of a report about speed: who is faster beyond noise, the roofline, sizes, rungs, memory, what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ulpgrad.bench.report import Entry
from ulpgrad.bench.suite import charts, view
from ulpgrad.bench.suite.charts import Point
from ulpgrad.bench.suite.record import OURS, Record, Row
from ulpgrad.bench.suite.tables import Figure, Section, Table, Value
from ulpgrad.bench.suite.view import Cell
from ulpgrad.bench.timing import readable

MOST = 24  # pictures of one kind on a page
SLOWER = 5  # cells that are named in the summary
SWEPT = 3  # sizes from which there is a curve to draw
FIGURES = ("time", "20 – 80 %", "rate", "of the limit", "its time", "ratio", "size", "first call", "peak memory",
           "traffic", "bits", "energy", "error", "whole error", "largest ULP", "gain")  # fmt: skip


def in_short(record: Record) -> Section:
    """Paragraphs that say what the tables show."""
    found = view.cells(record.rows)
    measured = [cell for cell in found if cell.ours is not None]
    rows = [row for row in record.rows if row.state == "measured"]
    told = [
        f"{view.many(len(rows), 'measurement')}: {view.many(len({c.op for c in measured}), 'op')}, "
        f"{view.many(len({c.format for c in measured}), 'format')}, {view.many(record.threads, 'thread')}. Times are medians; "
        "from the 20th to the 80th percentile is noise, and a difference inside it counts as none."
    ]
    if record.busy:
        told.append(f"Mind: {record.busy}.")
    for peer in view.peers(found):
        if (mean := view.mean_ratio(found, peer)) is not None:
            pairs = [(cell.ours, row) for cell in measured for row in cell.peers if row.contender == peer]
            apart = [(a, b) for a, b in pairs if a and a.time and b.time and a.time.differs(b.time)]
            ahead = sum(view.seconds(a) < view.seconds(b) for a, b in apart)
            told.append(
                f"Beside {peer}: {view.times(mean[0])} its speed (geometric mean over {mean[1]} cells); faster in {ahead}, "
                f"slower in {len(apart) - ahead}, no difference in {len(pairs) - len(apart)}."
            )
    behind = sorted((c for c in measured if (c.ratio or 1) < 1 and c.is_beyond_noise), key=lambda c: c.ratio or 1)
    if behind:
        named = "; ".join(f"{c.name}: {view.times(c.ratio)} {c.best.contender}" for c in behind[:SLOWER] if c.best)
        told.append(f"Furthest behind a peer: {named}.")
    if suspect := [row for row in record.rows if view.is_suspect(row)]:
        told.append(
            f"Above the roofline: {len(suspect)}. That is an error of the benchmark or of the measured limit, not a "
            "speed, and they do not count."
        )
    if lost := [row for row in record.rows if row.state in ("failed", "too large")]:
        told.append(f"Failed, or too large for the memory: {len(lost)}; the reasons are below.")
    if record.ended is None:
        told.append("The run has not come to its end: the same command goes on where it stopped.")
    return Section("In short", tuple(told))


def speed(record: Record) -> Section:
    """A line for each cell: ours beside the fastest peer and the limit."""
    found = [cell for cell in view.cells(record.rows) if cell.ours is not None]
    columns = (
        "op", "format", "size", "time", "ratio", "best peer", "its time", "of the limit", "rate", "20 – 80 %", "kernel",
    )  # fmt: skip
    lines: list[list[Value]] = [_speed_line(cell) for cell in found]
    note = (
        "Ratio: the fastest peer's time over ours, above 1 where ours is faster; “within noise” where that of both overlaps. The "
        "limit is what this machine did at most in the same run: multiply-adds from registers where arithmetic bounds, else a "
        "copy of as much memory."
    )
    return Section("Speed", (), (Table("Beside the fastest peer", columns, lines, FIGURES, note),))


def _speed_line(cell: Cell) -> list[Value]:
    row, best = cell.ours, cell.best
    assert row is not None
    return [
        cell.op, cell.format, Entry(view.size_text(cell.size), cell.size), duration(row), ratio(cell),
        best.contender if best else "", duration(best) if best else "", share(row), speed_of(row), view.interval(row),
        kernel(row),
    ]  # fmt: skip


def roofline(record: Record) -> Section | None:
    """Operations a second against operations for each byte, ours and the peers', below the measured limits."""
    largest = {
        (cell.op, cell.format): cell for cell in sorted(view.cells(record.rows), key=lambda c: c.size or 0) if cell.ours
    }
    rows = [
        row for cell in largest.values() for row in (cell.ours, *cell.peers)
        if row is not None and row.flops and row.bytes and row.limit and row.limit.bytes and row.limit.flops
    ]  # fmt: skip
    if not rows:
        return None
    several = len({row.format for row in rows}) > 1
    points = [Point(row.flops / row.bytes, row.flops / view.seconds(row), f"{row.op} {row.format}" if several else row.op,
                    row.contender) for row in rows if row.flops and row.bytes]  # fmt: skip
    columns = (
        "op",
        "format",
        "size",
        "contender",
        "operations a byte",
        "GFLOP/s",
        "limit of arithmetic",
        "limit of memory",
    )
    lines: list[list[Value]] = [
        [row.op, row.format, Entry(view.size_text(row.size), row.size), row.contender,
         *(Entry(view.figure(v), v) for v in (point.x, point.y / 1e9, row.limit.flops / 1e9, row.limit.bytes / 1e9))]
        for row, point in zip(rows, points, strict=True) if row.limit and row.limit.flops and row.limit.bytes
    ]  # fmt: skip
    note = (
        "Lines: what was measured as the limit, multiply-adds from registers (level) and memory (rising; the upper one from the "
        "caches, the lower one for the largest work). Work to the left of a knee waits for memory, to its right for arithmetic."
    )
    table = Table("", columns, lines, columns[4:], "G operations and GB a second.")
    title = "Operations a second against operations for each byte, the largest size of each op"
    picture = Figure(title, partial(_draw_roofline, roofs(rows), points), table, view.command(record, rows), note,
                     (charts.WIDE, 5.6), wide=True)  # fmt: skip
    return Section("Roofline", (), (picture,))


def _draw_roofline(lines: dict[str, tuple[float, float]], points: Sequence[Point], axes: Any) -> None:
    charts.roofline(axes, lines, points)


def roofs(rows: Sequence[Row]) -> dict[str, tuple[float, float]]:
    """Limits by the formats that share them; where memory's differ by size, the slowest one apart."""
    by_limit: dict[float, list[str]] = {}
    memory = [row.limit.bytes for row in rows if row.limit and row.limit.bytes]
    for row in rows:
        if row.limit and row.limit.flops:
            same = next((limit for limit in by_limit if abs(limit / row.limit.flops - 1) < 0.02), row.limit.flops)
            if row.format not in by_limit.setdefault(same, []):
                by_limit[same].append(row.format)
    found = {_short(names): (limit, max(memory)) for limit, names in sorted(by_limit.items(), reverse=True)}
    if max(memory) > 1.2 * min(memory):
        found[""] = (max(by_limit), min(memory))
    return found


def _short(names: Sequence[str]) -> str:
    return ", ".join([names[0], f"{len(names) - 1} more"] if len(names) > 2 else names)


def sizes(record: Record) -> Section | None:
    """Rates over sizes, for each op and format that was measured at several."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in view.cells(record.rows):
        if cell.size is not None and cell.ours is not None:
            groups.setdefault((cell.op, cell.format), []).append(cell)
    swept = {name: found for name, found in groups.items() if len(found) >= SWEPT}
    figures = [_sweep(record, name, found) for name, found in list(swept.items())[:MOST]]
    if not figures:
        return None
    more = f"The first {MOST} of {len(swept)} are drawn." if len(swept) > MOST else ""
    return Section("Sizes", (more,) if more else (), tuple(figures))


def _sweep(record: Record, name: tuple[str, str], found: Sequence[Cell]) -> Figure:
    rows = [row for cell in found for row in (cell.ours, *cell.peers) if row is not None]
    largest = max(found, key=lambda cell: cell.size or 0).ours
    assert largest is not None
    by_arithmetic = largest.bound == "arithmetic"
    unit = "GFLOP/s" if by_arithmetic else "GB/s"
    points, limits = [], {}
    for row in rows:
        amount = row.flops if by_arithmetic else row.bytes
        if amount and row.time and row.size is not None:
            low, high = (amount / t / 1e9 for t in (row.time.p80, row.time.p20))
            points.append(Point(row.size, amount / row.time.median / 1e9, "", row.contender, low, high))
            most = row.limit and (row.limit.flops if by_arithmetic else row.limit.bytes)
            if most:
                limits[float(row.size)] = most / 1e9
    names = charts.series_of(points)
    at = {(p.x, p.series): p for p in points}
    lines = [
        [Entry(str(cell.size), cell.size),
         *(Entry(view.figure(p.y), p.y) if (p := at.get((cell.size or 0, n))) else "" for n in names), ratio(cell)]
        for cell in found
    ]  # fmt: skip
    table = Table("", ("size", *names, "ratio"), lines, (*names, "ratio"), f"{unit}; ratio: to the fastest peer.")
    draw = partial(_draw_sweep, points, list(limits.items()), largest.counts or "size", unit)
    return Figure(f"{name[0]}, {name[1]}", draw, table, view.command(record, rows))


def _draw_sweep(
    points: Sequence[Point], limits: Sequence[tuple[float, float]], label: str, unit: str, axes: Any
) -> None:
    charts.sweep(axes, points, limits, label, unit)


def rungs(record: Record) -> Section | None:
    """Every rung that was measured, where there are several."""
    lines: list[list[Value]] = []
    for cell in view.cells(record.rows):
        own = [row for row in cell.measured if row.contender == OURS]
        for below, row in zip([None, *own], own, strict=False) if len(own) > 1 else ():
            gain = view.seconds(below) / view.seconds(row) if below else None
            lines.append([cell.op, cell.format, Entry(view.size_text(cell.size), cell.size), kernel(row), duration(row),
                          view.interval(row), speed_of(row), share(row), Entry(view.times(gain), gain),
                          "taken" if row.chosen else ""])  # fmt: skip
    if not lines:
        return None
    columns = ("op", "format", "size", "kernel", "time", "20 – 80 %", "rate", "of the limit", "gain", "by dispatch")
    return Section("Rungs", (), (Table("From the definition upwards", columns, lines, FIGURES,
                                       "Gain: over the rung before."),))  # fmt: skip


def resources(record: Record) -> Section | None:
    """Memory, the first call, energy: ours."""
    lines: list[list[Value]] = []
    metered = any(row.energy is not None for row in record.rows)
    for cell in view.cells(record.rows):
        if (row := cell.ours) is not None and row.time is not None:
            first = None if row.first is None else row.first / row.time.median
            lines.append([
                cell.op, cell.format, Entry(view.size_text(cell.size), cell.size), duration(row),
                Entry("" if row.first is None else f"{readable(row.first)} ({view.times(first)})", row.first),
                Entry(view.size_of(row.memory), row.memory), Entry(view.size_of(row.traffic), row.traffic),
                *([Entry(view.joules(row.energy), row.energy)] if metered else []),
            ])  # fmt: skip
    if not lines:
        return None
    columns = ("op", "format", "size", "time", "first call", "peak memory", "traffic", *(["energy"] if metered else []))
    note = (
        "First call: with choosing the kernel, and compiling it where Numba does. Peak memory: what the call allocates beyond "
        "its operands. Traffic: operands and results, each value in just its bits."
        + ("" if metered else " Energy: this machine reports none.")
    )
    return Section("Memory and first calls", (), (Table("Of a call", columns, lines, FIGURES, note),))


def not_measured(record: Record) -> Section | None:
    """Rows without a time, and those that cannot be true, with their reasons."""
    why: dict[tuple[str, str, str], list[Row]] = {}
    for row in record.rows:
        if row.time is None:
            why.setdefault((row.state, row.reason, row.contender), []).append(row)
    parts: list[Table] = []
    if suspect := [row for row in record.rows if view.is_suspect(row)]:
        lines: list[list[Value]] = [
            [
                row.op,
                row.format,
                Entry(view.size_text(row.size), row.size),
                kernel(row),
                duration(row),
                share(row),
                row.reason,
            ]
            for row in suspect
        ]
        columns = ("op", "format", "size", "kernel", "time", "of the limit", "why")
        parts.append(Table("Above the roofline: errors of the benchmark", columns, lines, FIGURES))
    if why:
        lines = [
            [state, contender, reason, _listed(list(dict.fromkeys(f"{r.op} {r.format}" for r in group)))]
            for (state, reason, contender), group in why.items()
        ]
        parts.append(Table("Not measured", ("state", "contender", "reason", "which"), lines))
    return Section("What is missing", (), tuple(parts)) if parts else None


def _listed(names: Sequence[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


# Entries of tables


def kernel(row: Row) -> str:
    """Our rung, or the peer."""
    return row.rung or row.contender if row.contender == OURS else row.contender


def duration(row: Row) -> Entry:
    return Entry(readable(view.seconds(row)), view.seconds(row))


def speed_of(row: Row) -> Value:
    found = view.rate(row)
    return Entry(f"{view.figure(found[0])} {found[1]}", found[0]) if found else ""


def share(row: Row) -> Value:
    """Of the limit, with a bar; above it in red."""
    if row.share is None:
        return ""
    return Entry(f"{row.share:.0%}" if row.share >= 0.01 else f"{row.share:.1%}", row.share,
                 "bad" if view.is_suspect(row) else "", row.share)  # fmt: skip


def ratio(cell: Cell) -> Value:
    """To the fastest peer: green, red, or none."""
    if cell.ratio is None:
        return ""
    if not cell.is_beyond_noise:
        return Entry(f"{view.times(cell.ratio)} (within noise)", cell.ratio, "faint")
    return Entry(view.times(cell.ratio), cell.ratio, "good" if cell.ratio > 1 else "bad")


__all__ = ["MOST", "duration", "in_short", "kernel", "not_measured", "ratio", "resources", "roofline", "roofs", "rungs",
           "share", "sizes", "speed", "speed_of"]  # fmt: skip
