"""`ulpgrad ladder`: every kernel of an op on one problem, from the definition to the fastest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.syntax import Syntax
from rich.text import Text

from ulpgrad.bench import ladder, machine, report
from ulpgrad.bench.ladder import rungs_on
from ulpgrad.bench.rungs import page, source
from ulpgrad.bench.rungs.page import Data
from ulpgrad.bench.shapes import Problem, shape_of
from ulpgrad.cli.arguments import problem
from ulpgrad.cli.bench import command
from ulpgrad.cli.screen import console, progress, table, writable, write_json
from ulpgrad.device import as_device
from ulpgrad.errors import ArgumentError, KernelError
from ulpgrad.io.atomic import atomic_write
from ulpgrad.kernels import gpu, registry
from ulpgrad.kernels.registry import Request, Rung
from ulpgrad.kernels.threads import get_num_threads

COLUMNS = ("kernel", "time", "p20 - p80", "rate", "gain", "of peak", "error", "idea, and what limits it now")
RIGHT = COLUMNS[1:7]
EMULATED = 64  # the largest standard size on an emulated GPU


@dataclass(frozen=True)
class Chosen:
    """What the command line says about the problem."""

    op: str
    size: int | None
    shapes: tuple[str, ...]
    form: str | None
    params: tuple[str, ...]
    device: str

    def rungs(self) -> list[Rung]:
        if self.device not in ("cpu", "cuda"):
            as_device(self.device)  # says which there are
            raise ArgumentError(f"--device {self.device}: expected cpu or cuda (the current GPU)")
        return rungs_on(registry.find(self.op), self.device)

    def problem(self) -> Problem:
        op = registry.find(self.op)
        size = self.size
        if size is None and not self.shapes and self.on_gpu and gpu.mode() and (counted := shape_of(op)):
            size = min(counted.size, EMULATED)
        return problem(op, list(self.shapes), self.form, list(self.params), size)

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"


def run(chosen: Chosen, samples: int, json: Path | None, html: Path | None, plot: Path | None) -> None:
    """Climb, and write what was asked for."""
    if plot is not None and plot.suffix != ".svg":
        raise ArgumentError(f"--plot {plot}: the picture is an SVG: --plot {plot.with_suffix('.svg')}")
    writable(json, html, plot)
    if chosen.on_gpu:
        as_device(chosen.device)  # or says what is missing
    rungs = chosen.rungs()
    given = chosen.problem()
    busy = machine.busy()  # before this command adds to the load
    with progress(len(rungs) + 1) as step:
        told = lambda text: step(f"{chosen.op}: {text}", done=True)  # noqa: E731
        data = ladder.climb(given, samples, told, chosen.device).as_data()
    write_json(json, data)
    show(data)
    if plot is not None:
        with atomic_write(plot, text=True) as file:
            file.write(page.picture(data, "ladder").file())
        console().print(f"Picture: {plot}", markup=False, soft_wrap=True)
    if html is not None:
        console().print(
            f"Report: {report.write(html, page.page(data, rungs, command()))}", markup=False, soft_wrap=True
        )
    for warning in filter(None, (busy, page.doubtful(data))):
        console(stderr=True).print(Text(f"Mind: {warning}.", style="bold yellow"))


def show(data: Data) -> None:
    """The table, flight by flight, and under it what the figures are compared with."""
    in_unit = page.unit(data)
    best = max((r["share_of_peak"] or 0.0 for r in data["rungs"] if r.get("seconds")), default=0.0)
    rows: list[list[Text]] = []
    for title, rungs in page.flights(data):
        rows.append([Text(title, style="italic dim"), *(Text("") for _ in COLUMNS[1:])])
        for rung in rungs:
            if rung["refusal"]:
                rows.append([Text(cell, style="dim") for cell in
                             (rung["rung"], "-", "", "", "", "", "", f"not here: {rung['refusal']}")])  # fmt: skip
                continue
            style = "bold green" if rung["share_of_peak"] and rung["share_of_peak"] == best else ""
            figures = [cell.replace(" to ", " - ").removesuffix(f" {in_unit}") for cell in page.cells(rung, in_unit)]
            rows.append([*(Text(cell, style=style) for cell in figures), _said(rung)])
    out = console()
    out.print(Text(data["call"], style="bold"))
    columns = tuple(in_unit if name == "rate" else name for name in COLUMNS)
    out.print(table("", columns, rows, right=tuple(in_unit if name == "rate" else name for name in RIGHT)))
    where = "the GPU" if data.get("device", "cpu") != "cpu" else f"{get_num_threads()} thread(s)"
    limits = f"Limits measured now on {where}, {data['peak_source']}."
    out.print(Text(f"{limits} {page.roofline(data)} Gains are over the rung below in the same flight.", style="dim"))


def _said(rung: Data) -> Text:
    said = Text(rung["idea"])
    if rung["limit"]:
        said.append(f"\nNow: {rung['limit']}", style="dim")
    if rung["loop"]:
        said.append(f"\nInner loop: {rung['loop']['text']}.", style="dim")
    return said


def show_source(chosen: Chosen, wanted: str | None, changed: str | None) -> None:
    """Sources, and what changed from the rungs below, of one rung or of all."""
    rungs = chosen.rungs()
    for rung in _meant(chosen, rungs, wanted) if wanted else ():
        for file in source.sources(rung):
            _listing(f"{rung.name}: {file.path}", file.text, file.language)
        if where := source.elsewhere(rung):
            console().print(f"The C++ of {rung.name}: {', '.join(where)}", markup=False)
    if changed is None:
        return
    found = [(rung, below, source.diff(rung, below))
             for rung in _meant(chosen, rungs, changed) if (below := _below(rungs, rung)) is not None]  # fmt: skip
    if not any(text for _, _, text in found):
        why = (
            f"what it does differently is not in one file: --source {found[0][0].name}" if found else "none is below it"
        )
        raise KernelError(f"{chosen.op} --diff {changed}: there is nothing to compare: {why}; see --diff all")
    for rung, below, text in found:
        if text:
            _listing(f"{rung.name}: what changed from {below.name}", text, "diff")


def _meant(chosen: Chosen, rungs: list[Rung], words: str) -> list[Rung]:
    """All rungs, the one that dispatch takes for the problem, or the one of that name."""
    if words == "all":
        return rungs
    if words != "best":
        return [source.named(rungs, words)]
    given = chosen.problem()
    request = Request(given.op, chosen.device, given.formats, given.arrays, given.params)
    return [registry.select(request)[0]]


def _below(rungs: list[Rung], rung: Rung) -> Rung | None:
    """The rung under it in its flight."""
    flight = [r for r in rungs if ladder.flight_of(r) == ladder.flight_of(rung)]
    at = flight.index(rung)
    return flight[at - 1] if at else None


def _listing(title: str, text: str, language: str) -> None:
    out = console()
    out.print(Text(title, style="bold"))
    if out.is_terminal:
        out.print(Syntax(text, language, theme="ansi_dark", background_color="default", word_wrap=True))
    else:
        print(text)
