"""`ulpgrad bench network`: one network in every number system, side by side."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from ulpgrad.bench import machine, report
from ulpgrad.bench.suite import network, page, record
from ulpgrad.bench.suite.record import Record
from ulpgrad.bench.suite.tables import Table
from ulpgrad.cli.bench import command
from ulpgrad.cli.bench_report import shown
from ulpgrad.cli.screen import console, progress, writable
from ulpgrad.kernels.threads import get_num_threads

TITLE = "One network in every number system"


def run(
    systems: str, batch_size: int, samples: int, outcome: Path | None, json: Path | None, html: Path | None,
    markdown: Path | None,
) -> None:  # fmt: skip
    """Measure, show, and write what was asked for."""
    writable(json, html, markdown)
    learnt = {} if outcome is None else network.outcomes(outcome)
    began, busy = _now(), machine.busy()
    names = [name for part in systems.split(",") if (name := part.strip())]
    with progress(None) as step:
        rows = network.measure(names, batch_size, samples, told=step)
    found = Record(command(), machine.commit(), machine.machine(), machine.versions(), get_num_threads(), began, _now(), busy,
                   {"systems": names, "batch_size": batch_size, "samples": samples}, tuple(rows))  # fmt: skip
    sections = network.sections(rows, learnt, found.command)
    out = console()
    for section in sections:
        for part in section.parts:
            if isinstance(part, Table):
                out.print(shown(part))
    if json is not None:
        record.write(json, found)
    lead = f"Time, error, memory and traffic of a step on {found.machine['cpu']}, {began[:10]}."
    if html is not None:
        made = [(s.title, s.html(f"section-{i}")) for i, s in enumerate(sections)]
        written = report.write(html, report.page(TITLE, lead, made, found.command, page.circumstances(found)))
        out.print(f"Report: {written}", soft_wrap=True, markup=False)
    if markdown is not None:
        text = "\n".join([f"# {TITLE}\n", lead + "\n", *(s.markdown() for s in sections)])
        out.print(f"Report: {report.write(markdown, text)}", soft_wrap=True, markup=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
