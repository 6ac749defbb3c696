"""`ulpgrad bench trial`: whether comparisons of runs can be trusted on this machine."""

from __future__ import annotations

from pathlib import Path

from ulpgrad.bench.suite import trial
from ulpgrad.cli.screen import console, table, writable, write_json
from ulpgrad.errors import DataError


def run(folder: Path, same: int, planted: int, threads: int, rounds: int, json: Path | None) -> None:
    """Make the runs that the folder has not yet, and show what comparisons of them come to."""
    writable(json)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made: {error.strerror}; name a folder for the runs") from None
    trial.measure(folder, same, planted, threads, rounds, lambda line: console().print(line, markup=False))
    write_json(json, trial.as_data(folder))
    console().print(table("Comparisons", trial.COLUMNS, trial.lines(folder), right=trial.COLUMNS[1:]))
