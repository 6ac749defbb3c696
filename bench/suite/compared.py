"""A comparison as sections of a report: what became slower, what faster, what else changed, and how fine the sieve was."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from ulpgrad.bench import report
from ulpgrad.bench.lab.plots import FAINT, INK, colour
from ulpgrad.bench.report import Entry
from ulpgrad.bench.suite import charts, page, view
from ulpgrad.bench.suite.compare import Change, Comparison, Verdict
from ulpgrad.bench.suite.record import Record
from ulpgrad.bench.suite.sections import FIGURES, duration, kernel
from ulpgrad.bench.suite.tables import Figure, Section, Table, Value

VERDICTS: tuple[Verdict, ...] = ("slower", "faster", "unsure", "none")
TITLE = "Two runs of ulpgrad"
COLUMNS = (
    "op",
    "format",
    "size",
    "before",
    "after",
    "ratio",
    "needed",
    "20 – 80 % before",
    "20 – 80 % after",
    "kernel",
)
RIGHT = (*FIGURES, "before", "after", "needed", "20 – 80 % before", "20 – 80 % after")


def sections(found: Comparison, command: str) -> list[Section]:
    """What a reader wants to know, in that order."""
    kinds = [
        (title, found.of(verdict)) for title, verdict in zip(("Slower", "Faster", "Unsure"), VERDICTS, strict=False)
    ]
    made = [Section("In short", tuple(in_short(found)), tuple(
        table(title, changes) for title, changes in kinds if changes
    ))]  # fmt: skip
    if found.others:
        lines: list[list[Value]] = [
            [r.op, r.format, Entry(view.size_text(r.size), r.size), kernel(r), what] for r, what in found.others
        ]
        made.append(
            Section("What else changed", (), (Table("", ("op", "format", "size", "kernel", "what"), lines, FIGURES),))
        )
    every = sorted(found.changes, key=lambda c: -c.ratio)
    note = (
        "Time after over time before, the slowest first; above 1 is slower. The bars are what chance may do to a row: a mark "
        "inside its own bar is no difference."
    )
    figure = Figure("Every row", partial(_draw, every), table("", every), command, note, (charts.WIDE, 4.4), wide=True)
    return [*made, Section("Every row", (), (figure,))]


def in_short(found: Comparison) -> list[str]:
    """How many, and how much could have been seen."""
    slower, faster, unsure, none = (len(found.of(verdict)) for verdict in VERDICTS)
    needed = sorted(c.needed for c in found.changes)
    counted = (
        f"{view.many(len(found.changes), 'row')} compared: {slower} slower, {faster} faster, {none} without a difference beyond "
        "noise."
    )
    if found.find is not None:
        return [counted, *_in_turns(found, found.find), *(f"Mind: {text}." for text in found.mind)]
    told = [
        counted,
        f"Times differ by {found.alike:.1%} from run to run although nothing changed, as {found.witnesses} witnesses say: peers "
        "of one version and runs of one code, or else the rows themselves. What can be told from that is, for half of the rows, "
        f"a factor of {needed[len(needed) // 2]:.2f}, and for all of them one of {needed[-1]:.2f}.",
    ]
    if unsure:
        told.append(
            f"Unsure: {unsure}. A run was made on a busy machine, where another program may have taken half of a core from any "
            "row: run it again."
        )
    if abs(math.log(found.shift)) > 0.01:
        told.append(
            f"The machine as a whole took {found.shift:.2f} times as long, by the witnesses; that is taken out."
        )
    told += [f"Mind: {text}." for text in found.mind]
    return told


def _in_turns(found: Comparison, find: float) -> list[str]:
    """How sure the verdicts on versions that were measured in turns are."""
    noisy = [c for c in found.changes if c.noise > math.log(find) / 2]
    told = [
        "Measured in turns, milliseconds apart: with a chance of 1 % any of these rows is accused although nothing changed. "
        f"In {len(found.changes) - len(noisy)} of them a change by a factor of {find:g} could not have been missed."
    ]
    if noisy:
        names = ", ".join(f"{_cell(c)} ({c.needed:.2f}x)" for c in sorted(noisy, key=lambda c: -c.needed))
        told.append(
            f"Too noisy for that, with what a change would have needed: {names}. More rounds tell more: --rounds."
        )
    return told


def _cell(c: Change) -> str:
    return " ".join(filter(None, (c.after.op, c.after.format, view.size_text(c.after.size))))


def table(title: str, changes: Sequence[Change]) -> Table:
    """Changes, their noise, and the factor that would have been needed."""
    lines: list[list[Value]] = [
        [c.after.op, c.after.format, Entry(view.size_text(c.after.size), c.after.size), duration(c.before), duration(c.after),
         ratio(c), Entry(f"{c.needed:.2f}x", c.needed), view.interval(c.before), view.interval(c.after), kernel(c.after)]
        for c in changes
    ]  # fmt: skip
    return Table(title, COLUMNS, lines, RIGHT)


def ratio(c: Change) -> Entry:
    if c.verdict == "none":
        return Entry(f"{c.ratio:.2f}x (within noise)", c.ratio, "faint")
    if c.verdict == "unsure":
        return Entry(f"{c.ratio:.2f}x, unsure", c.ratio, "")
    return Entry(f"{c.ratio:.2f}x {c.verdict}", c.ratio, "bad" if c.verdict == "slower" else "good")


def _draw(changes: Sequence[Change], axes: Any) -> None:
    at = list(range(len(changes)))
    axes.vlines(at, [1 / c.needed for c in changes], [c.needed for c in changes], color=FAINT, alpha=0.3,
                linewidth=max(1.0, min(8.0, 240 / len(changes))))  # fmt: skip
    for verdict, shade, mark in (
        ("none", INK, "o"),
        ("slower", colour(2), "^"),
        ("faster", colour(3), "v"),
        ("unsure", colour(5), "D"),
    ):
        own = [(i, c.ratio) for i, c in enumerate(changes) if c.verdict == verdict]
        if own:
            axes.plot(*zip(*own, strict=True), mark, color=shade, markersize=5, label=verdict)
    axes.axhline(1, color=FAINT, linewidth=0.8)
    axes.set_yscale("log")
    reach = max([1.1, *(max(c.needed, c.ratio, 1 / c.ratio) for c in changes)]) * 1.03
    ticks = [t for t in (0.1, 0.2, 0.5, 0.67, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 5.0, 10.0) if 1 / reach < t < reach]
    axes.set_ylim(1 / reach, reach)
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.grid(visible=False, axis="x")
    if len(changes) <= 24:
        axes.set_xticks(at, [_cell(c) for c in changes], rotation=60, ha="right", fontsize=8.5)
    else:
        axes.set_xticks([])
        axes.set_xlabel(f"{len(changes)} rows")
    axes.set_ylabel("after / before")
    axes.figure.legend(loc="outside lower center", ncols=3)


def html(found: Comparison, before: Sequence[Record], after: Record, command: str) -> str:
    """The whole page."""
    facts = [
        ("Command", command),
        *((f"Before, {name.lower()}", text) for name, text in page.circumstances(before[-1])),
        *((f"After, {name.lower()}", text) for name, text in page.circumstances(after)),
    ]
    made = [(s.title, s.html(f"section-{i}")) for i, s in enumerate(sections(found, command))]
    old, new = (f"{page.moment(r.started)}, commit {r.commit or 'unknown'}" for r in (before[-1], after))
    return report.page(TITLE, f"Before: {old}. After: {new}.", made, command, facts)


__all__ = ["COLUMNS", "TITLE", "html", "in_short", "ratio", "sections", "table"]
