"""Reports: one HTML file that needs nothing else, readable on a phone, on paper and in the dark."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from ulpgrad.bench import machine
from ulpgrad.io.atomic import atomic_write

STYLE = (Path(__file__).parent / "report.css").read_text()


def page(title: str, lead: str, sections: Sequence[tuple[str, str]], command: str) -> str:
    """A whole page: title, one leading paragraph of plain text, sections (heading, HTML), and how it came about."""
    body = "\n".join(f"<section>\n<h2>{escape(heading)}</h2>\n{html}\n</section>" for heading, html in sections)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>
{STYLE}</style>
</head>
<body>
<main>
<header>
<h1>{escape(title)}</h1>
<p class="lead">{escape(lead)}</p>
</header>
{body}
<section>
<h2>How this came about</h2>
{definitions(circumstances(command))}
</section>
</main>
</body>
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


def html_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str, right: Sequence[str] = ()) -> str:
    """A table under its title, which scrolls sideways by itself on a narrow screen; `right`
    names columns of figures."""
    kinds = [' class="figure"' if name in right else "" for name in columns]
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(columns, kinds, strict=True))
    lines = []
    for row in rows:
        cells = [f'<th scope="row">{escape(row[0])}</th>']
        cells += [f"<td{kind}>{escape(cell)}</td>" for cell, kind in zip(row[1:], kinds[1:], strict=True)]
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<h3>{escape(title)}</h3><div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def write(path: Path, html: str) -> Path:
    """Write a page, whole or not at all. Raises DataError if it cannot be written."""
    with atomic_write(path, text=True) as file:
        file.write(html)
    return path


__all__ = ["circumstances", "definitions", "html_table", "page", "write"]
