"""A run's report: one HTML page that needs nothing else, the same as Markdown, and every row as CSV."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ulpgrad.bench import report
from ulpgrad.bench.suite import precision, sections, view
from ulpgrad.bench.suite.record import Record, Row
from ulpgrad.bench.suite.tables import Section, Table

TITLE = "ulpgrad, measured"
SHOWN = (
    sections.in_short, sections.speed, sections.roofline, sections.sizes, precision.formats, precision.ulps, precision.ranges,
    sections.rungs, sections.resources, sections.not_measured,
)  # fmt: skip


def contents(record: Record) -> list[Section]:
    """All sections that the run has something for."""
    return [section for make in SHOWN if (section := make(record)) is not None]


def html(record: Record) -> str:
    """The whole page."""
    made = [(s.title, s.html(f"section-{i}")) for i, s in enumerate(contents(record))]
    return report.page(TITLE, lead(record), made, record.command, circumstances(record))


def markdown(record: Record) -> str:
    """The same in words and tables."""
    facts = "\n".join(f"- {name}: {text}" for name, text in circumstances(record))
    parts = [f"# {TITLE}\n", lead(record) + "\n", *(s.markdown() for s in contents(record))]
    return "\n".join([*parts, f"## How this came about\n\n{facts}\n"])


def csv(record: Record) -> str:
    """A line for each row of the record, with every figure of it; nothing where it has none."""
    return Table("", COLUMNS, [flat(row) for row in record.rows]).csv()


COLUMNS = (
    "op", "format", "size", "counts", "device", "threads", "contender", "rung", "chosen", "state", "reason", "seconds", "p20",
    "p80", "samples", "first_call", "flops", "bytes", "flops_per_second", "bytes_per_second", "limit_flops", "limit_bytes",
    "bound", "share", "peak_memory", "bits", "traffic", "relative_error", "whole_error", "largest_ulp", "overflowed",
    "underflowed", "joules", "call",
)  # fmt: skip


def flat(row: Row) -> list[str]:
    """A row in COLUMNS."""
    time, error, lost, limit = row.time, row.error, row.range, row.limit
    values: list[Any] = [
        row.op, row.format, row.size, row.counts, row.device, row.threads, row.contender, row.rung, row.chosen, row.state,
        row.reason, *((time.median, time.p20, time.p80, len(time.samples)) if time else (None,) * 4), row.first, row.flops,
        row.bytes, *(amount / time.median if time and amount else None for amount in (row.flops, row.bytes)),
        *((limit.flops, limit.bytes) if limit else (None, None)), row.bound, row.share, row.memory, row.bits, row.traffic,
        *((error.relative, error.whole, error.ulps) if error else (None,) * 3),
        *((lost.overflowed, lost.underflowed) if lost else (None, None)), row.energy, row.call,
    ]  # fmt: skip
    return ["" if value is None else str(value) for value in values]


def lead(record: Record) -> str:
    """One paragraph: where and when."""
    beside = view.peers(view.cells(record.rows))
    names = f" beside {', '.join(beside)}" if beside else ""
    machine = record.machine.get("cpu", "an unknown processor")
    return (
        f"Kernels of ulpgrad{names} on {machine}, {record.started[:10]}: speed, error, memory and traffic in one run."
    )


def circumstances(record: Record) -> list[tuple[str, str]]:
    """The command, the machine and the versions of that run."""
    host = record.machine
    memory = host.get("memory_bytes")
    return [
        ("Command", record.command),
        ("Measured", f"{moment(record.started)} to {moment(record.ended) if record.ended else 'now: not at its end'}"),
        ("Machine", f"{host.get('cpu', 'unknown')}, {host.get('cores', '?')} cores"
                    + (f", {memory / 2**30:.0f} GiB" if memory else "")),
        ("Threads", str(record.threads)),
        *([("Mind", record.busy)] if record.busy else []),
        ("Commit", record.commit or "not from a checkout"),
        ("Versions", ", ".join(f"{name} {v}" for name, v in record.versions.items() if v)),
        ("System", str(host.get("system", "unknown"))),
    ]  # fmt: skip


def moment(stamp: str) -> str:
    """A time of the record, to the minute."""
    return datetime.fromisoformat(stamp).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


__all__ = ["COLUMNS", "circumstances", "contents", "csv", "flat", "html", "lead", "markdown"]
