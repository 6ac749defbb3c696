"""`python -m ulpgrad.bench.numbers`: measure all rows, and show them."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ulpgrad.bench import machine
from ulpgrad.bench.numbers import peers
from ulpgrad.bench.numbers.table import Outcome, check, measure
from ulpgrad.bench.numbers.works import WORKS
from ulpgrad.io.atomic import atomic_write
from ulpgrad.kernels.threads import get_num_threads, set_num_threads

COLUMNS = ("work", "ours", "limit", "share", "best peer", "its rate", "ratio", "target", "")
RIGHT = ("ours", "limit", "share", "its rate", "ratio")
PEERS = ("torch", "torchao", "apytypes")
WIDE = 160  # columns where there is no terminal to ask
VERDICTS = {True: "met", False: "missed", None: ""}


def run(threads: int, *, quick: bool = False, only: str = "") -> list[Outcome]:
    """Check and measure every row whose name contains `only`."""
    torch = peers.imported("torch")
    before = get_num_threads()
    found = []
    try:
        for name in (name for name in WORKS if only in name):
            work = WORKS[name](name)
            count = work.threads or threads
            set_num_threads(count)
            if torch is not None:
                torch.set_num_threads(count)
            check(work)
            found.append(measure(work, count, quick=quick))
            print(f"{work.name}: {_rate(found[-1].rate)} {work.unit}", file=sys.stderr)
    finally:
        set_num_threads(before)
    return found


def show(found: list[Outcome]) -> None:
    """The table, every peer's rate under it, and notes."""
    screen = Console(highlight=False)
    if not screen.is_terminal:
        screen = Console(highlight=False, width=WIDE)
    rows = [
        (o.work, f"{_rate(o.rate)} {o.unit}", _rate(o.limit), "" if o.share is None else f"{o.share:.0%}", o.best or "",
         _rate(o.peers[o.best] if o.best else None), _ratio(o), o.target, VERDICTS[o.met])
        for o in found
    ]  # fmt: skip
    screen.print(table("Number systems beside their peers", COLUMNS, rows))
    others = [
        (o.work, ", ".join(f"{name} {_rate(rate)}" for name, rate in o.peers.items()), "; ".join(o.notes))
        for o in found
    ]
    screen.print(table("Every peer, in the unit of the row", ("work", "rates", "notes"), others))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of text; figures are aligned right."""
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        made.add_column(name, justify="right" if name in RIGHT else "left", no_wrap=name in RIGHT)
    for row in rows:
        made.add_row(*row)
    return made


def _rate(rate: float | None) -> str:
    return "" if rate is None else f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _ratio(o: Outcome) -> str:
    if o.ratio is None:
        return ""
    return (
        f"{o.ratio:.0%}" if o.target.endswith("limit") else f"{o.ratio:,.0f}x" if o.ratio >= 100 else f"{o.ratio:.3g}x"
    )


def as_data(found: list[Outcome], *, quick: bool, busy: str | None) -> dict[str, Any]:
    """Everything that is shown, and where it was measured."""
    return {
        "rows": [o.as_data() for o in found],
        "quick": quick,
        "busy": busy,
        "machine": machine.machine(),
        "instruction_sets": machine.instruction_sets(),
        "extension": machine.extension(),
        "versions": {**machine.versions(), **{name: _version(name) for name in PEERS}},
        "commit": machine.commit(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m ulpgrad.bench.numbers", description=__doc__)
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all figures, such as bench/results/numbers.json"
    )
    parser.add_argument("--threads", type=int, default=get_num_threads(), help="of rows that are not per core")
    parser.add_argument("--quick", action="store_true", help="three samples of each, to see it work")
    parser.add_argument("--only", default="", metavar="WORDS", help="rows whose name contains WORDS")
    given = parser.parse_args(arguments)
    busy = machine.busy()
    if busy:
        print(busy, file=sys.stderr)
    found = run(given.threads, quick=given.quick, only=given.only)
    show(found)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(given.json, text=True) as file:
            json.dump(as_data(found, quick=given.quick, busy=busy), file, indent=2, ensure_ascii=False, allow_nan=False)
            file.write("\n")


if __name__ == "__main__":
    main()
