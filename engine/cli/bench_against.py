"""`ulpgrad bench against`: what changed since another version, with both measured in turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ulpgrad.bench.suite import compare as comparison, run, turns, version
from ulpgrad.bench.suite.record import Row
from ulpgrad.bench.suite.run import Settings
from ulpgrad.bench.timing import readable
from ulpgrad.cli.bench import command
from ulpgrad.cli.bench_report import judged
from ulpgrad.cli.bench_run import within
from ulpgrad.cli.screen import console, progress, writable
from ulpgrad.errors import ArgumentError


def against(before: str, settings: Settings, find: float, json: Path | None, html: Path | None, *, fail: bool) -> None:
    """Measure both versions, judge each row by itself, and keep what was asked for."""
    if not find > 1:
        raise ArgumentError(f"--find {find:g}: expected a factor above 1, such as 1.1 for a change by a tenth")
    within(settings)
    writable(html)
    run.plan(settings)
    err = console(stderr=True)
    with version.found(before, lambda text: err.print(text, markup=False)) as other:
        made = turns.start(settings, other, find, command(), json)
        if made.after.rows:
            err.print(f"Going on after {len({row.cell for row in made.after.rows})} cells of an earlier call.")
        with progress(None, lines=True) as step:

            def told(name: str, rows: Sequence[Row]) -> None:
                step(f"{name}: {brief(rows)}" if rows else name, done=bool(rows))

            try:
                made = turns.finish(made, settings, other, json, told)
            except KeyboardInterrupt:
                if json is not None:
                    err.print(f"Stopped: {json} has what is done; the same command goes on from there.")
                raise
    judged(comparison.in_turns(made), [made.before], made.after, None, html, fail=fail)
    if json is not None:
        console().print(f"Record: {json}", soft_wrap=True, markup=False)


def brief(rows: Sequence[Row]) -> str:
    """Before and after in one line."""
    return ", now ".join(readable(row.time.median) if row.time else row.state for row in rows)
