"""`ulpgrad bench report` and `ulpgrad bench compare`: what recorded runs say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from rich.text import Text

from ulpgrad.bench import report as pages
from ulpgrad.bench.report import Entry
from ulpgrad.bench.suite import compare as comparison, compared, page, record, sections, turns, view
from ulpgrad.bench.suite.compare import Comparison
from ulpgrad.bench.suite.record import Record
from ulpgrad.bench.suite.tables import Table, text
from ulpgrad.cli.bench import command
from ulpgrad.cli.screen import console, table, write_json
from ulpgrad.errors import ArgumentError, DataError

RESULTS = Path(pages.__file__).resolve().parent / "results"
STYLES = {"good": "green", "bad": "bold red", "faint": "dim"}


def report(names: Sequence[str], html: Path | None, markdown: Path | None, csv: Path | None) -> None:
    """Show a run, or several together, and write them in the forms that were asked for."""
    for name in names:
        if turns.read(located(name)) is not None:
            raise DataError(f"{name}: two versions in turns: `ulpgrad bench compare {name}` shows what changed")
    found = view.together([record.read(located(name)) for name in names])
    out = console()
    show(found)
    for path, made in ((html, page.html), (markdown, page.markdown), (csv, page.csv)):
        if path is not None:
            out.print(f"Report: {pages.write(path, made(found))}", soft_wrap=True, markup=False)


def show(found: Record) -> None:
    """The run in short: who is faster, every figure of speed, and what was not measured."""
    out = console()
    for text_ in sections.in_short(found).paragraphs:
        out.print(text_, markup=False)
    for section in (sections.speed(found), sections.not_measured(found)):
        for part in section.parts if section else ():
            assert isinstance(part, Table)
            if part.rows:
                out.print(shown(part))


def compare(names: Sequence[str], json: Path | None, html: Path | None, *, fail: bool) -> None:
    """Say what became faster or slower from the runs before, all but the last, to the last."""
    if len(names) == 1 and (pair := turns.read(located(names[0]))) is not None:
        return judged(comparison.in_turns(pair), [pair.before], pair.after, json, html, fail=fail)
    if len(names) < 2:
        raise ArgumentError(
            f"compare: {len(names)} run given, expected two: the one before, then the one after; or one file of "
            "`ulpgrad bench against --json`"
        )
    *before, after = (record.read(located(name)) for name in names)
    return judged(comparison.compare(before, after), before, after, json, html, fail=fail)


def judged(
    found: Comparison, before: Sequence[Record], after: Record, json: Path | None, html: Path | None, *, fail: bool
) -> None:
    """Show a comparison, and write it in the forms that were asked for."""
    out = console()
    for section in compared.sections(found, command())[:-1]:
        for text_ in section.paragraphs:
            out.print(text_, markup=False)
        for part in section.parts:
            assert isinstance(part, Table)
            out.print(shown(part))
    write_json(json, found.as_data())
    if html is not None:
        out.print(
            f"Report: {pages.write(html, compared.html(found, before, after, command()))}", soft_wrap=True, markup=False
        )
    if fail and found.of("slower"):
        raise typer.Exit(1)


def located(name: str) -> Path:
    """A file by its path, or one of bench/results by its name. DataError, with the names there are, for neither."""
    if Path(name).exists() or "/" in name or name.endswith(".json"):
        return Path(name)
    kept = sorted(path.stem for path in RESULTS.glob("suite-*.json"))
    for stem in (name, f"suite-{name}"):
        if stem in kept:
            return RESULTS / f"{stem}.json"
    raise DataError(f"{name}: no such file; recorded are {', '.join(kept) or 'none'}")


def shown(part: Table) -> object:
    """A table of a report on the terminal."""
    rows = [
        [Text(text(cell), style=STYLES.get(cell.kind, "") if isinstance(cell, Entry) else "") for cell in row]
        for row in part.rows
    ]
    return table(part.title, part.columns, rows, right=part.right)
