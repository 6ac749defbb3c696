"""`ulpgrad bench report` and `ulpgrad bench compare`: what recorded runs say."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from ulpgrad.bench import report as pages
from ulpgrad.bench.report import Entry
from ulpgrad.bench.suite import page, record, sections
from ulpgrad.bench.suite.record import Record
from ulpgrad.bench.suite.tables import Table, text
from ulpgrad.cli.screen import console, table
from ulpgrad.errors import DataError

RESULTS = Path(pages.__file__).resolve().parent / "results"
STYLES = {"good": "green", "bad": "bold red", "faint": "dim"}


def report(name: str, html: Path | None, markdown: Path | None, csv: Path | None) -> None:
    """Show a run, and write it in the forms that were asked for."""
    found = record.read(located(name))
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
            out.print(shown(part))


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
