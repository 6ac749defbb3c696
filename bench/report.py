"""Reports: one HTML file that needs nothing else, readable on a phone, on paper and in the dark."""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from ulpgrad.bench import machine
from ulpgrad.io.atomic import atomic_write

STYLE = (Path(__file__).parent / "report.css").read_text()
SCRIPT = (Path(__file__).parent / "report.js").read_text()
LONG = 40  # letters from which an entry may take several lines
TALL = 24  # rows from which a table scrolls under its head
CONTENTS = 5  # sections from which a page lists them at its top


@dataclass(frozen=True)
class Entry:
    """An entry of a table that is more than its text: the number that it is sorted by, a class of the style sheet, and a bar as
    long as a share of the cell (0 to 1)."""

    text: str
    value: float | None = None
    kind: str = ""
    bar: float | None = None


def page(
    title: str, lead: str, sections: Sequence[tuple[str, str]], command: str,
    facts: Sequence[tuple[str, str]] | None = None, style: str = "",
) -> str:  # fmt: skip
    """A whole page: title, one leading paragraph of plain text, sections (heading, HTML), and how it came about: `facts`, for
    what was recorded elsewhere, or this machine and these versions. `style`: rules that only this page needs."""
    names = [re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-") for heading, _ in sections]
    body = "\n".join(
        f'<section id="{name}">\n<h2>{escape(heading)}</h2>\n{html}\n</section>'
        for name, (heading, html) in zip(names, sections, strict=True)
    )
    links = [f'<a href="#{name}">{escape(heading)}</a>' for name, (heading, _) in zip(names, sections, strict=True)]
    contents = f'<nav aria-label="Contents">{" ".join(links)}</nav>\n' if len(sections) >= CONTENTS else ""
    script = f"<script>\n{SCRIPT}</script>\n" if '<table class="sorts"' in body else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{STYLE}{style}</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>
{contents}</header>
{body}
<section>
<h2>How this came about</h2>
{definitions(facts or circumstances(command))}
</section>
</main>
{script}</body>
</html>
"""


def circumstances(command: str) -> list[tuple[str, str]]:
    """The command, the machine and the versions."""
    host, found = machine.machine(), machine.versions()
    sets = machine.instruction_sets()
    kernels = f"C++, {sets['used']}" if sets["used"] else "Numba and NumPy (the C++ extension is not in use)"
    size = host["memory_bytes"]
    return [
        ("Command", command),
        ("Made", datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")),
        ("Machine", f"{host['cpu']}, {host['cores']} cores" + (f", {size / 2**30:.0f} GiB" if size else "")),
        *([("Mind", reason)] if (reason := machine.busy()) else []),
        ("Kernels", kernels),
        ("Commit", machine.commit() or "not from a checkout"),
        ("Versions", ", ".join(f"{name} {v}" for name, v in found.items() if v)),
        ("System", platform.platform(terse=True)),
    ]


def definitions(rows: Sequence[tuple[str, str]]) -> str:
    """Names and what they mean."""
    return "<dl>" + "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in rows) + "</dl>"


def html_table(
    columns: Sequence[str], rows: Sequence[Sequence[str | Entry]], title: str, right: Sequence[str] = (), *,
    sorts: bool = False,
) -> str:  # fmt: skip
    """A table under its title, which scrolls sideways by itself on a narrow screen; `right` names columns of figures. With
    `sorts`, a click on a column's name sorts by it."""
    kinds = [' class="figure"' if name in right else "" for name in columns]
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(columns, kinds, strict=True))
    lines = []
    for row in rows:
        cells = [_cell("th", row[0], "")]
        cells += [
            _cell("td", cell, "figure" if name in right else "")
            for cell, name in zip(row[1:], columns[1:], strict=True)
        ]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    heading = f"<h3>{escape(title)}</h3>" if title else ""
    opened = '<table class="sorts">' if sorts else "<table>"
    room = "wide tall" if len(rows) > TALL and sorts else "wide"
    return (
        f'{heading}<div class="{room}" tabindex="0">{opened}<thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(tag: str, cell: str | Entry, kind: str) -> str:
    found = cell if isinstance(cell, Entry) else Entry(cell)
    words = "words" if len(found.text) > LONG and " " in found.text else ""
    names = " ".join(filter(None, (kind, found.kind, words)))
    marks = ' scope="row"' if tag == "th" else ""
    marks += f' class="{names}"' if names else ""
    marks += f' data-value="{found.value:.6g}"' if found.value is not None else ""
    bar = "" if found.bar is None else f'<i class="bar" style="--share: {max(0.0, min(1.0, found.bar)):.3f}"></i>'
    return f"<{tag}{marks}>{escape(found.text)}{bar}</{tag}>"


def write(path: Path, html: str) -> Path:
    """Write a page, whole or not at all. Raises DataError if it cannot be written."""
    with atomic_write(path, text=True) as file:
        file.write(html)
    return path


__all__ = ["Entry", "circumstances", "definitions", "html_table", "page", "write"]
