"""What all commands share: tables on a terminal, plain columns elsewhere, the same figures as JSON, and progress."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ulpgrad.errors import DataError
from ulpgrad.io.atomic import atomic_write

WIDE = 150  # columns where there is no terminal to ask


def console(*, stderr: bool = False) -> Console:
    """The terminal; where there is none, plain text of a fixed width."""
    out = Console(stderr=stderr, highlight=False, soft_wrap=False)
    return out if out.is_terminal else Console(stderr=stderr, highlight=False, width=WIDE, color_system=None)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()) -> Table:
    """A table; `right` names columns of figures. Cells are text or rich's Text."""
    is_terminal = console().is_terminal
    shown = title if is_terminal or not title else f"\n{title}"  # a terminal's tables have air around them
    made = Table(
        title=shown or None,
        title_justify="left",
        title_style="bold",
        header_style="bold" if is_terminal else "",
        box=box.SIMPLE_HEAD if is_terminal else None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", no_wrap=name in right, overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return made


def facts(title: str, rows: Sequence[tuple[str, Any]]) -> Table:
    """A table of names and values without a header."""
    made = table(title, ("", ""), [(name, value) for name, value in rows])
    made.show_header = False
    made.columns[0].style = "dim" if console().is_terminal else ""
    made.columns[0].no_wrap = True
    return made


def writable(*paths: Path | None) -> None:
    """DataError at once for a file that could not be written when everything is measured."""
    for path in paths:
        if path is None or (path.exists() and not path.is_dir() and not path.is_file()):
            continue  # a terminal, a pipe, /dev/null
        if path.is_dir():
            raise DataError(f"{path}: is a folder; name a file")
        if not os.access(path.parent, os.W_OK):
            raise DataError(f"{path}: cannot write into {path.parent}: is the folder there?")


def write_json(path: Path | None, data: Any) -> None:
    """Write what was printed, whole or not at all. Raises DataError if it cannot be written."""
    if path is not None:
        with atomic_write(path, text=True) as file:
            json.dump(data, file, indent=2, ensure_ascii=False, allow_nan=False)
            file.write("\n")


class Step(Protocol):
    """Called when something begins, and with `done=True` when it is finished."""

    def __call__(self, text: str, *, done: bool = False) -> None: ...


@contextmanager
def progress(total: int | None, *, lines: bool = False) -> Iterator[Step]:
    """A bar that goes away when it is full; with `lines`, off the terminal, one line for each thing that is finished."""
    out = console(stderr=True)
    if not out.is_terminal:

        def note(text: str, *, done: bool = False) -> None:
            if done and lines:
                out.print(text, markup=False)

        yield note
        return
    counted = [MofNCompleteColumn()] if total else []
    with Progress(SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(24), *counted,
                  TimeElapsedColumn(), console=out, transient=True) as bar:  # fmt: skip
        task = bar.add_task("", total=total)

        def show(text: str, *, done: bool = False) -> None:
            bar.update(task, description=text, advance=1 if done else 0)

        yield show
