"""`ulpgrad study`: run a study, print its table, and write its report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ulpgrad.bench import report, studies
from ulpgrad.cli.screen import console, progress, table, write_json
from ulpgrad.errors import DataError


def run(name: str, given: Mapping[str, Any], out: Path, *, quick: bool, fresh: bool, json: Path | None) -> None:
    study = studies.load(name)
    options = study.Options.of(given, quick=quick)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{out}: the folder cannot be made: {error.strerror}; choose another with --out") from error
    with progress(len(options.runs()), lines=True) as step:
        results = study.run(options, out / f"{name}-runs", step, fresh=fresh)
    screen = console()
    for title, columns, rows, right in study.tables(results):
        screen.print(table(title, columns, rows, right=right))
    screen.print()
    command = shlex.join(["ulpgrad", *sys.argv[1:]])
    html = report.write(out / f"{name}.html", study.page(results, command))
    data = study.as_data(options, results)
    write_json(out / f"{name}.json", data)
    write_json(json, data)
    screen.print(f"Report: {html}", soft_wrap=True)
    screen.print(f"Figures: {out / f'{name}.json'}", soft_wrap=True)
