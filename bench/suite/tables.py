"""What a report is made of: tables, pictures with their numbers, sections. As HTML, as Markdown, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ulpgrad.bench import report
from ulpgrad.bench.lab.plots import INCHES, svg
from ulpgrad.bench.report import Entry

Value = str | Entry
Draw = Callable[[Any], None]


@dataclass(frozen=True)
class Table:
    """Rows under their columns; `right` names columns of figures."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Value]]
    right: tuple[str, ...] = ()
    note: str = ""

    def html(self, *, titled: bool = True) -> str:
        made = report.html_table(self.columns, self.rows, self.title if titled else "", self.right, sorts=True)
        return made + (f'<p class="note">{escape(self.note)}</p>' if self.note else "")

    def markdown(self, *, titled: bool = True) -> str:
        """GitHub's tables: vertical bars inside cells are escaped."""
        rule = ["---:" if name in self.right else "---" for name in self.columns]
        lines = [self.columns, rule, *([text(cell).replace("|", "\\|") for cell in row] for row in self.rows)]
        made = "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
        head = f"### {self.title}\n\n" if titled and self.title else ""
        return head + made + (f"\n{self.note}\n" if self.note else "")

    def csv(self) -> str:
        """Numbers in full, for programs."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([number(cell) for cell in row] for row in self.rows)
        return file.getvalue()


@dataclass(frozen=True)
class Figure:
    """A picture under its title, the numbers that are drawn, and the command that measures them."""

    title: str
    draw: Draw
    table: Table
    command: str
    note: str = ""
    inches: tuple[float, float] = INCHES
    wide: bool = False

    def html(self, name: str) -> str:
        """A figure element; `name` tells its inner names from those of other pictures on the page."""
        note = f'<p class="note">{escape(self.note)}</p>' if self.note else ""
        kind = ' class="broad"' if self.wide else ""
        return (
            f"<figure{kind}><figcaption>{escape(self.title)}</figcaption>"
            f'<div class="pan">{svg(self.draw, name, self.title, self.inches)}</div>{note}'
            f"<details><summary>Numbers and command</summary><p><code>{escape(self.command)}</code></p>"
            f"{self.table.html(titled=False)}</details></figure>"
        )

    def markdown(self) -> str:
        """Its numbers."""
        return f"### {self.title}\n\n{self.table.markdown(titled=False)}\n`{self.command}`\n"


Part = Table | Figure


@dataclass(frozen=True)
class Section:
    """A heading, what is to be seen, then tables and pictures."""

    title: str
    paragraphs: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()

    def html(self, name: str) -> str:
        made = [f"<p>{escape(paragraph)}</p>" for paragraph in self.paragraphs]
        figures: list[str] = []
        for i, part in enumerate(self.parts):
            if isinstance(part, Figure):
                figures.append(part.html(f"{name}-{i}"))
            else:
                made += [*_charts(figures), part.html()]
                figures = []
        return "\n".join([*made, *_charts(figures)])

    def markdown(self) -> str:
        parts = [part.markdown() for part in self.parts]
        return "\n\n".join([f"## {self.title}", *self.paragraphs, *(part.strip() for part in parts)]) + "\n"


def _charts(figures: Sequence[str]) -> list[str]:
    return [f'<div class="charts">{"".join(figures)}</div>'] if figures else []


def text(cell: Value) -> str:
    """As it is shown."""
    return cell.text if isinstance(cell, Entry) else cell


def number(cell: Value) -> str | float:
    """As it is computed with."""
    return cell.value if isinstance(cell, Entry) and cell.value is not None else text(cell)


__all__ = ["Draw", "Figure", "Part", "Section", "Table", "Value", "number", "text"]
