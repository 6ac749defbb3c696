"""`ulpgrad ladder`: every kernel of an op on one problem, from the definition to the fastest."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rich.text import Text

from ulpgrad.bench import ladder, machine
from ulpgrad.bench.ladder import Climb, Step
from ulpgrad.bench.timing import readable
from ulpgrad.cli.arguments import problem
from ulpgrad.cli.screen import console, progress, table, write_json
from ulpgrad.kernels import registry
from ulpgrad.kernels.threads import get_num_threads


def run(
    name: str, size: int | None, shapes: list[str], form: str | None, params: list[str], samples: int, json: Path | None
) -> None:
    op = registry.find(name)
    given = problem(op, shapes, form, params, size)
    warning = machine.busy()  # before this command adds to the load
    with progress(len(registry.ladder(op)) + 1) as step:
        climb = ladder.climb(given, samples, lambda text: step(f"{name}: {text}", done=True))
    write_json(json, as_data(climb))
    show(climb)
    if warning:
        console(stderr=True).print(Text(f"Mind: {warning}.", style="bold yellow"))


def as_data(climb: Climb) -> dict[str, Any]:
    """All figures, in seconds, operations and bytes."""
    return {
        "op": climb.problem.op.name,
        "call": climb.problem.call,
        "flops": climb.flops,
        "bytes": climb.bytes,
        "bound": climb.bound,
        "peak_flops_per_second": climb.peak_flops,
        "peak_bytes_per_second": climb.peak_bytes,
        "peak_source": climb.peak_source,
        "threads": get_num_threads(),
        "machine": machine.machine(),
        "rungs": [_step_data(climb, step) for step in climb.steps],
    }


def _step_data(climb: Climb, step: Step) -> dict[str, Any]:
    data: dict[str, Any] = {"rung": step.rung.name, "idea": step.rung.idea, "refusal": step.refusal}
    if step.timing is not None:
        rate = climb.rate(step)
        data |= {
            "seconds": step.timing.median,
            "p20": step.timing.p20,
            "p80": step.timing.p80,
            "samples": step.timing.samples,
            "gflops_per_second": rate if climb.bound == "arithmetic" else None,
            "gbytes_per_second": rate if climb.bound == "memory" else None,
            "gain": step.gain,
            "share_of_peak": step.share,
        }
    return data


def show(climb: Climb) -> None:
    """The table, and under it what the figures are compared with."""
    rate = "GFLOP/s" if climb.bound == "arithmetic" else "GB/s"
    rows = []
    best = max((s.share or 0 for s in climb.steps), default=0)
    for step in climb.steps:
        if step.timing is None:
            cells = [step.rung.name, "-", "", "", "", "", f"not here: {step.refusal}"]
            rows.append([Text(cell, style="dim") for cell in cells])
            continue
        t = step.timing
        spread = "once" if t.is_single else f"{readable(t.p20)} - {readable(t.p80)}"
        style = "bold green" if step.share is not None and step.share == best else ""
        share = "" if step.share is None else f"{step.share:.1%}"
        gain = "" if step.gain is None else f"{step.gain:.{1 if step.gain < 100 else 0}f}x"
        idea = _first_sentence(step.rung.idea)
        cells = [step.rung.name, readable(t.median), spread, _digits(climb.rate(step)), gain, share, idea]
        rows.append([Text(cell, style=style if i < 6 else "") for i, cell in enumerate(cells)])
    out = console()
    out.print(Text(climb.problem.call, style="bold"))
    out.print(table("", ("kernel", "time", "p20 - p80", rate, "gain", "of peak", "idea"), rows,
                    right=("time", "p20 - p80", rate, "gain", "of peak")))  # fmt: skip
    arithmetic = f"{climb.peak_flops / 1e9:,.0f} GFLOP/s ({climb.peak_source}), " if climb.peak_flops else ""
    out.print(Text(
        f"Limits measured now on {get_num_threads()} thread(s): {arithmetic}"
        f"{climb.peak_bytes / 1e9:,.1f} GB/s copying as much memory. "
        f"The call needs {_counted(climb.flops)}FLOP and moves {_counted(climb.bytes)}B at least; "
        f"{climb.bound} is the nearer limit, and the peak is the time it allows.",
        style="dim",
    ))  # fmt: skip


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.;]) (?=[A-Z])", text)[0]


def _digits(value: float | None) -> str:
    return (
        "" if value is None else f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 4}f}"
    )


def _counted(value: float) -> str:
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value:.0f} "
