"""`ulpgrad bench [OPS]`: any op in any format, size and rung beside its peers, as rows that can be kept and compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ulpgrad.bench import report as pages, shapes
from ulpgrad.bench.suite import page, peers, run
from ulpgrad.bench.suite.record import Row
from ulpgrad.bench.suite.run import QUICK, Settings, sizes
from ulpgrad.bench.timing import readable
from ulpgrad.cli.bench import command
from ulpgrad.cli.bench_report import show
from ulpgrad.cli.screen import console, progress, table, writable
from ulpgrad.errors import ArgumentError
from ulpgrad.kernels import registry
from ulpgrad.kernels.threads import get_num_threads
from ulpgrad.settings import cores

COLUMNS = (
    "op",
    "format",
    "size",
    "who",
    "time",
    "20 to 80 %",
    "rate",
    "of the limit",
    "memory",
    "error",
    "ULP",
    "against ours",
)
RIGHT = COLUMNS[4:]


def listed() -> None:
    """Every op, its standard size and what that counts."""
    rows = []
    for name, op in registry.ops().items():
        shape = shapes.shape_of(op)
        rows.append(
            (name, op.family, shape.size if shape else "", shape.counts if shape else "", len(registry.ladder(op)))
        )
    console().print(table("Ops", ("op", "family", "size", "counts", "rungs"), rows, right=("size", "rungs")))


def bench(settings: Settings, json: Path | None, html: Path | None) -> None:
    """Measure, show, and keep what was asked for."""
    within(settings)
    writable(html)
    wanted = run.plan(settings)
    for name in peers.chosen(settings.peers):
        if reason := peers.skipped(name):
            console(stderr=True).print(f"{name} is left out: {reason}", markup=False)
    made = run.start(settings, command(), json)
    if made.rows:
        console(stderr=True).print(f"Going on after {len({row.cell for row in made.rows})} cells of an earlier call.")
    with progress(len(wanted) * settings.rounds, lines=True) as step:

        def told(name: str, rows: list[Row]) -> None:
            step(f"{name}: {brief(rows)}" if rows else name, done=bool(rows))

        try:
            made = run.finish(made, settings, json, told)
        except KeyboardInterrupt:
            if json is not None:
                console(stderr=True).print(f"Stopped: {json} has what is done; the same command goes on from there.")
            raise
    show(made)
    if json is not None:
        console().print(f"Record: {json}", soft_wrap=True, markup=False)
    if html is not None:
        console().print(f"Report: {pages.write(html, page.html(made))}", soft_wrap=True, markup=False)


def within(settings: Settings) -> None:
    """ArgumentError for more threads than there are cores."""
    if settings.threads > cores():
        raise ArgumentError(f"--threads {settings.threads}: this process may use {cores()} cores only")


def brief(rows: Sequence[Row]) -> str:
    """A cell in one line."""
    return ", ".join(f"{_who(r)} {readable(r.time.median)}" if r.time and r.state == "measured" else f"{_who(r)} {r.state}"
                     for r in rows)  # fmt: skip


def threads(count: int | None) -> int:
    """Those asked for, else all there are."""
    return count or get_num_threads()


def _who(row: Row) -> str:
    return f"{row.contender} {row.rung.removeprefix('cpu/')}" if row.rung else row.contender


__all__ = ["QUICK", "Settings", "bench", "listed", "sizes", "threads", "within"]
