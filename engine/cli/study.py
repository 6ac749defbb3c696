"""`ulpgrad study`: run a study, print its tables, and write its report."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from ulpgrad.bench import report, studies
from ulpgrad.bench.lab import page, runs
from ulpgrad.cli.screen import console, progress, table, write_json
from ulpgrad.errors import DataError

INTERRUPTED = 130


def show(json: Path | None) -> None:
    """The table of all studies."""
    found = {name: studies.load(name) for name in studies.names()}
    rows = [
        (name, study.title, _after(study.source), str(len(study.rows)), _duration(study.minutes))
        for name, study in found.items()
    ]
    console().print(table("Studies", ("name", "question", "after", "rows", "takes"), rows, right=("rows", "takes")))
    write_json(json, [
        {"name": name, "title": s.title, "source": s.source, "claim": s.claim, "rows": list(s.rows), "minutes": s.minutes}
        for name, s in found.items()
    ])  # fmt: skip


def _after(source: str) -> str:
    """The first author and the year of a source."""
    years = re.findall(r"\b(?:19|20)\d\d\b", source)
    return " ".join([re.split(",| and ", source)[0], *years[-1:]])


def _duration(minutes: float) -> str:
    return f"{minutes:.0f} min" if minutes >= 1 else f"{60 * minutes:.0f} s"


def run(
    name: str, given: Mapping[str, Any], out: Path, *, policies: Sequence[str] = (), quick: bool, fresh: bool,
    json: Path | None,
) -> None:  # fmt: skip
    """Run what is not finished, then show and write all of it."""
    study = studies.under(name, policies) if policies else studies.load(name)
    options = study.options(given, quick=quick)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: the folder cannot be made: {error.strerror}; choose another with --out") from error
    try:
        with progress(len(study.runs(options)), lines=True) as step:
            results = runs.finish(name, study, options, out / f"{name}-runs", step, fresh=fresh)
    except KeyboardInterrupt:
        print("ulpgrad: interrupted; the same command goes on after the last finished run", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    screen = console()
    for title, columns, rows, right in study.tables(results):
        screen.print(table(title, columns, rows, right=right))
    screen.print()
    for text in study.paragraphs(results):
        screen.print(text, markup=False)
        screen.print()
    for text, holds in study.verdicts(results) if results.whole else ():
        screen.print(f"{page.VERDICTS[holds][1]}: {text}", markup=False)
    command = shlex.join(["ulpgrad", *sys.argv[1:]])
    html = report.write(out / f"{name}.html", page.page(name, study, results, command))
    data = page.as_data(name, study, options, results)
    write_json(out / f"{name}.json", data)
    write_json(json, data)
    screen.print(f"Report: {html}", soft_wrap=True)
    screen.print(f"Figures: {out / f'{name}.json'}", soft_wrap=True)
