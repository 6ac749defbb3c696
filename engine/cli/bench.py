"""`ulpgrad bench`: ours beside the peers, as a table and over sizes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.text import Text

from ulpgrad.bench import machine, report
from ulpgrad.bench.peers import page, profiled, recorded, sweeps, table as works
from ulpgrad.bench.peers.work import Outcome
from ulpgrad.cli.screen import console, progress, table, writable, write_json
from ulpgrad.errors import ArgumentError, DataError
from ulpgrad.kernels.threads import get_num_threads

STYLES = {"met": "green", "missed": "bold red"}


def only_cpu(device: str) -> None:
    """ArgumentError for a device whose peers cannot be measured."""
    if device != "cpu":
        raise ArgumentError(f"--device {device}: the peers are measured on the CPU only: --device cpu")


def peers(words: str, device: str, threads: int | None, json: Path | None, html: Path | None, *, quick: bool) -> None:
    """The table of targets."""
    only_cpu(device)
    writable(json, html)
    busy = machine.busy()  # before this command adds to the load
    names = works.chosen(words, list(works.WORKS))
    with progress(len(names), lines=True) as step:

        def told(o: Outcome) -> None:
            step(f"{o.work}: {page.rate(o.rate)} {o.unit}", done=True)

        found = works.run(words, threads or get_num_threads(), quick=quick, told=told)
    out = console()
    lines = [[*row[:-1], Text(row[-1], style=STYLES.get(row[-1], ""))] for row in page.rows(found)]
    out.print(table("Beside the fastest peer, and the targets", page.COLUMNS, lines, right=page.RIGHT))
    if errors := page.errors(found):
        out.print(
            table("Errors: their norm over the norm of the float64 result", page.ERRORS, errors, right=page.RIGHT)
        )
    out.print(table("Every peer, in the unit of the row", ("work", "rates", "notes"), page.others(found)))
    data = {"rows": [o.as_data() for o in found], **works.circumstances(quick=quick, busy=busy)}
    finish(data, json, html, lambda: page.peers_page(found, command()), busy)


def sweep(words: str, device: str, threads: int | None, json: Path | None, html: Path | None, *, quick: bool) -> None:
    """Sizes, and where a peer is faster."""
    only_cpu(device)
    writable(json, html)
    busy = machine.busy()
    names = works.chosen(words, list(sweeps.SWEEPS))
    with progress(sum(len(sweeps.SWEEPS[name].sizes) for name in names), lines=True) as step:

        def told(name: str, o: Outcome) -> None:
            step(f"{name}, {o.work}: {page.rate(o.rate)} {o.unit}, {page.times(o.ratio)}", done=True)

        found = sweeps.run(words, threads or get_num_threads(), quick=quick, told=told)
    out = console()
    for name, outcomes in found.items():
        lines = [
            (o.work, page.rate(o.rate), "" if o.share is None else f"{o.share:.0%}",
             ", ".join(f"{peer} {page.rate(r)}" for peer, r in o.peers.items()), page.times(o.ratio))
            for o in outcomes
        ]  # fmt: skip
        columns = ("size", outcomes[0].unit, "share", "peers", "ratio")
        out.print(table(name, columns, lines, right=(outcomes[0].unit, "share", "ratio")))
    if slower := page.behind(found):
        out.print(table("Behind a peer: the worst points", ("sweep", "size", "ours", "peer", "ratio"), slower,
                        right=("ours", "ratio")))  # fmt: skip
    data = {"sweeps": {name: [o.as_data() for o in outcomes] for name, outcomes in found.items()},
            **works.circumstances(quick=quick, busy=busy)}  # fmt: skip
    finish(data, json, html, lambda: page.sweep_page(found, command()), busy)


def profile(words: str, threads: int | None, json: Path | None, *, quick: bool) -> None:
    """Training steps, kernel by kernel."""
    writable(json)
    busy = machine.busy()
    found = profiled.run(words, threads or get_num_threads(), quick=quick)
    for step in found:
        title = f"Where a training step of `{step.name}` goes"
        console().print(table(title, profiled.COLUMNS, profiled.rows(step), right=profiled.RIGHT))
    data = {"steps": [step.as_data() for step in found], **works.circumstances(quick=quick, busy=busy)}
    finish(data, json, None, str, busy)


def tables() -> None:
    """Tables and pictures of the documents, from what is recorded."""
    root = Path(report.__file__).resolve().parent.parent
    if not (root / "docs").is_dir():
        raise DataError(f"{root}: no checkout of ulpgrad, whose documents could be written")
    changed = recorded.write(root)
    for path in changed:
        console().print(f"{path.relative_to(root)}", markup=False)
    if not changed:
        console().print("All tables and pictures are as recorded.")


def command() -> str:
    """As it was typed."""
    return shlex.join(["ulpgrad", *sys.argv[1:]])


def finish(data: Any, json: Path | None, html: Path | None, made: Callable[[], str], busy: str | None) -> None:
    """Write what was asked for, and say where times are not to be trusted."""
    write_json(json, data)
    if html is not None:
        console().print(f"Report: {report.write(html, made())}", soft_wrap=True)
    if busy:
        console(stderr=True).print(Text(f"Mind: {busy}.", style="bold yellow"))
