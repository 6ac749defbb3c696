"""`ulpgrad explain`: the verdict of every kernel on a call."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from ulpgrad.cli.arguments import problem
from ulpgrad.cli.screen import console, table, write_json
from ulpgrad.explain import explain_call
from ulpgrad.kernels import registry


def run(name: str, shapes: list[str], form: str | None, params: list[str], json: Path | None) -> None:
    given = problem(registry.find(name), shapes, form, params, None)
    found = explain_call(given.op, given.formats, given.arrays, given.params)
    write_json(json, {
        "op": name,
        "call": found.call,
        "taken": found.taken,
        "rungs": [
            {"rung": c.rung.name, "rank": c.rung.rank, "taken": c.taken, "widened": c.widened, "refusal": c.refusal}
            for c in found.choices
        ],
    })  # fmt: skip
    rows = []
    for mark, rung, verdict in found.rows():
        style = "bold green" if mark else "" if verdict.startswith("would") else "dim"
        rows.append([Text(cell, style=style) for cell in (mark, rung, verdict)])
    out = console()
    out.print(Text(found.call, style="bold"))
    out.print(table("", ("", "kernel, highest first", "verdict"), rows))
