"""The sections of a report about formats: error against time, errors in ULPs, where formats overflow or drown."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from ulpgrad.bench.report import Entry
from ulpgrad.bench.suite import charts, view
from ulpgrad.bench.suite.cells import named
from ulpgrad.bench.suite.charts import Point
from ulpgrad.bench.suite.record import OURS, Record, Row
from ulpgrad.bench.suite.sections import FIGURES, MOST, duration, speed_of
from ulpgrad.bench.suite.tables import Figure, Section, Table, Value
from ulpgrad.bench.suite.view import Cell
from ulpgrad.errors import FormatError
from ulpgrad.formats import Format

BASE = "float32"
FEW = 12  # ops whose errors are drawn where no op was run in several formats
TOGETHER = 6  # formats in one picture of errors

Group = tuple[str, list[Cell]]


def by_format(record: Record) -> list[Group]:
    """Cells of one op and size in several formats: what it is called, and they."""
    found: dict[tuple[str, int | None], list[Cell]] = {}
    for cell in view.cells(record.rows):
        if cell.ours is not None:
            found.setdefault((cell.op, cell.size), []).append(cell)
    chosen: dict[str, tuple[int | None, list[Cell]]] = {}
    for (op, size), cells in found.items():  # of several sizes, the largest that the most formats have
        before = chosen.get(op)
        if len(cells) > 1 and (before is None or (len(cells), size or 0) > (len(before[1]), before[0] or 0)):
            chosen[op] = size, cells
    return [(op if size is None else f"{op}, {size}", cells) for op, (size, cells) in chosen.items()]


def formats(record: Record) -> Section | None:
    """Each op across formats: speed, error, memory and traffic side by side, and the front of error against time."""
    groups = by_format(record)
    if not groups:
        return None
    parts: list[Table | Figure] = []
    for name, cells in groups[:MOST]:
        rows = [row for cell in cells for row in (cell.ours, *cell.peers) if row is not None]
        points = [
            Point(view.seconds(row), error, row.format, row.contender, row.time.p20, row.time.p80)
            for row in rows if row.time and (error := worst(row)) is not None
        ]  # fmt: skip
        table = side_by_side(name, rows)
        if len({p.name for p in points}) > 1:
            draw = partial(_draw_front, points)
            parts.append(Figure(f"{name}: error against time", draw, table, view.command(record, rows)))
        else:
            parts.append(table)
    told = (
        "Each op with the same values in each format. The error is the norm of the difference from the float64 result over that "
        "result's norm, with what operands lose as they are stored; NumPy in float64 often is that result. Dashed: the front, "
        "where nothing is better in both.",
        *([f"The first {MOST} of {len(groups)} ops are shown."] if len(groups) > MOST else []),
    )
    return Section("Formats", told, tuple(parts))


def worst(row: Row) -> float | None:
    """The error with what operands lost, where it is known; None where it is not a number."""
    if row.error is None:
        return None
    return row.error.relative if row.error.whole is None else row.error.whole


def _draw_front(points: Sequence[Point], axes: Any) -> None:
    charts.pareto(axes, points, "seconds a call", "relative error")


def side_by_side(name: str, rows: Sequence[Row]) -> Table:
    """Speed, error, memory and traffic of each format and contender."""
    base = next((view.seconds(r) for r in rows if r.format == BASE and r.contender == OURS), None)
    columns = ("format", "contender", "time", f"of {BASE}'s speed", "rate", "error", "whole error", "largest ULP", "bits",
               "traffic", "peak memory")  # fmt: skip
    lines: list[list[Value]] = []
    for row in rows:
        gain = None if base is None else base / view.seconds(row)
        e = row.error
        lines.append([
            row.format, row.contender, duration(row), Entry(view.times(gain), gain), speed_of(row),
            small(e.relative if e else None), small(e.whole if e else None), small(e.ulps if e else None),
            Entry("" if row.bits is None else f"{row.bits:g}", row.bits), Entry(view.size_of(row.traffic), row.traffic),
            Entry(view.size_of(row.memory), row.memory),
        ])  # fmt: skip
    return Table(name, columns, lines, (*FIGURES, columns[3]))


def small(value: float | None) -> Value:
    """An error."""
    return "" if value is None else Entry(f"{value:.3g}", value)


def ulps(record: Record) -> Section | None:
    """How far results are from float64's, in units in the last place of their format."""
    measured = [row for row in record.rows if row.state == "measured" and row.error and row.error.histogram]
    own = [cell.ours for cell in view.cells(record.rows) if cell.ours and cell.ours in measured]
    if not own:
        return None
    drawn = {op: {} for op in dict.fromkeys(row.op for row in own)}  # type: dict[str, dict[str, Row]]
    for row in own:  # of several sizes, the largest
        before = drawn[row.op].get(row.format)
        if before is None or (row.size or 0) >= (before.size or 0):
            drawn[row.op][row.format] = row
    several = {op: rows for op, rows in drawn.items() if len(rows) > 1}
    ranked = sorted(drawn, key=lambda op: -max(row.error.ulps or 0 for row in drawn[op].values() if row.error))
    chosen = list(several)[:MOST] or ranked[:FEW]
    figures = []
    for op in chosen:
        rows = list(drawn[op].values())[:TOGETHER]
        histograms = {row.format: row.error.histogram for row in rows if row.error}
        table = _bands(histograms)
        figures.append(Figure(op, partial(_draw_ulps, histograms), table, view.command(record, rows)))
    columns = ("op", "format", "size", "contender", "error", "largest ULP")
    lines: list[list[Value]] = [
        [row.op, row.format, Entry(view.size_text(row.size), row.size), row.contender, small(row.error.relative),
         small(row.error.ulps)]
        for row in measured if row.error and (row.contender != OURS or row in own)
    ]  # fmt: skip
    note = (
        "One unit in the last place (ULP) is the distance between neighbouring values of the result's format; half of one is the "
        "best that rounding can do."
    )
    which = "in which results have the largest errors" if not several and len(drawn) > FEW else ""
    told = (note, *([f"Drawn are the {FEW} ops {which}."] if which else []))
    return Section("Errors in units in the last place", told,
                   (*figures, Table("Every error", columns, lines, FIGURES)))  # fmt: skip


def _draw_ulps(histograms: dict[str, Any], axes: Any) -> None:
    charts.ulps(axes, histograms)


def _bands(histograms: dict[str, Any]) -> Table:
    bands = sorted({(low, high) for bins in histograms.values() for low, high, _ in bins})
    lines: list[list[Value]] = []
    for low, high in bands:
        counts = [next((n for a, b, n in bins if (a, b) == (low, high)), 0) for bins in histograms.values()]
        lines.append([Entry(charts.band(low, high), high), *(Entry(f"{n:,}", n) for n in counts)])
    return Table("", ("ULP", *histograms), lines, ("ULP", *histograms), "Results in each band.")


def ranges(record: Record) -> Section | None:
    """Where each format overflows, and where values drown in zero."""
    losses: dict[str, dict[str, tuple[float, float]]] = {}
    for cell in view.cells(record.rows):
        row = cell.ours
        if row is not None and row.range is not None:
            before = losses.setdefault(row.format, {}).get(row.op, (0.0, 0.0))
            losses[row.format][row.op] = (
                max(before[0], row.range.underflowed), max(before[1], row.range.overflowed),
            )  # fmt: skip
    known = [form for name in losses if (form := known_format(name)) is not None]
    if not known:
        return None
    hit = [(name, op, *pair) for name, found in losses.items() for op, pair in found.items() if max(pair) > 0]
    lines: list[list[Value]] = [
        [name, op, Entry(charts.percent(low), low), Entry(charts.percent(high), high)] for name, op, low, high in hit
    ]
    columns = ("format", "op", "became zero", "overflowed")
    spared = [name for name in losses if name not in {line[0] for line in hit}]
    told = (
        "Shares of results that left the format: infinite or clamped at the top, zero at the bottom where the exact "
        "result is not."
    )
    none = f"Nothing was lost in {', '.join(spared)}." if spared else ""
    rows = [row for row in record.rows if row.state == "measured" and row.range and row.contender == OURS]
    table = Table("", columns, lines, columns[2:], none)
    note = "Bars: from the smallest value above zero to the largest, subnormal ones pale; beside them the op that lost the most."
    figure = Figure("What each format reaches, and what it lost", partial(_draw_ranges, known, losses), table,
                    view.command(record, rows), note, (charts.WIDE, 0.9 + 0.32 * len(known)), wide=True)  # fmt: skip
    return Section("Range", (told,), (figure,))


def _draw_ranges(known: Sequence[Format], losses: dict[str, dict[str, tuple[float, float]]], axes: Any) -> None:
    charts.ranges(axes, known, losses)


def known_format(name: str) -> Format | None:
    """A float, fixed-point or block format by its name; None for what has no range to draw."""
    try:
        form = named(name)
    except FormatError:
        return None
    return form if form.kind in ("float", "fixed", "block") else None


__all__ = ["by_format", "formats", "known_format", "ranges", "side_by_side", "small", "ulps"]
