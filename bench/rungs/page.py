"""A climb in tables, as a picture and as a page, from its figures (`Climb.as_data`, or a recorded file)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ulpgrad.bench import report
from ulpgrad.bench.lab.plots import FAINT, INK, PAPER, colour
from ulpgrad.bench.pictures import Picture
from ulpgrad.bench.rungs import source
from ulpgrad.bench.timing import readable
from ulpgrad.kernels.registry import Rung

STYLE = (Path(__file__).parent / "code.css").read_text()
COLUMNS = ("rung", "time", "p20 to p80", "rate", "gain", "of the peak", "error")
RIGHT = COLUMNS[1:]
ABOVE = 1.05  # of the peak: more than its own noise
ROW = 0.27  # inches of a rung in a picture
Data = dict[str, Any]


def flights(data: Data) -> list[tuple[str, list[Data]]]:
    """Rungs by flight, in the order of climbing; flights without one are left out."""
    found = [(title, [r for r in data["rungs"] if r["flight"] == i]) for i, title in enumerate(data["flights"])]
    return [(title, rungs) for title, rungs in found if rungs]


def unit(data: Data) -> str:
    """What rates count: operations where arithmetic is the nearer limit, else bytes."""
    counts = "GOP/s" if "int" in data["call"].partition("(")[2].partition("[")[0] else "GFLOP/s"
    return counts if data["bound"] == "arithmetic" else "GB/s"


def rate(rung: Data) -> float | None:
    """In the unit of the climb."""
    found: float | None = rung["gflops_per_second"] or rung["gbytes_per_second"]
    return found


def cells(rung: Data, in_unit: str) -> tuple[str, ...]:
    """A line of COLUMNS; of a rung that was not run, its name and the reason."""
    if rung.get("seconds") is None:
        return (rung["rung"], "", "", "", "", "", "")
    spread = "once" if rung["samples"] == 1 else f"{readable(rung['p20'])} to {readable(rung['p80'])}"
    return (rung["rung"], readable(rung["seconds"]), spread, f"{digits(rate(rung))} {in_unit}", times(rung["gain"]),
            share(rung["share_of_peak"]), "" if rung["error"] is None else f"{rung['error']:.1e}")  # fmt: skip


def digits(value: float | None) -> str:
    """Three of them."""
    if value is None:
        return ""
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 0.1 else 4}f}"


def times(value: float | None) -> str:
    return "" if value is None else f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}x"


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def counted(value: float) -> str:
    """With a prefix: "2.15 G"."""
    for prefix, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {prefix}"
    return f"{value:.3g} "


def roofline(data: Data) -> str:
    """The arithmetic that says which limit is nearer, in sentences."""
    flops, moved, peak, copy = (
        data[key] for key in ("flops", "bytes", "peak_flops_per_second", "peak_bytes_per_second")
    )
    what = unit({**data, "bound": "arithmetic"}).removeprefix("G").removesuffix("/s")
    memory = f"moves at least {counted(moved)}B, which takes {readable(moved / copy)} at {copy / 1e9:,.0f} GB/s"
    if not peak or not flops:
        return f"The call {memory}: memory is its limit."
    nearer = f"{data['bound']} is the nearer limit, and the peak is the time that it allows"
    return (
        f"The call needs {counted(flops)}{what}, which takes {readable(flops / peak)} at {peak / 1e9:,.0f} G{what}/s, and "
        f"{memory}. Its intensity is {data['intensity']:.3g} {what} per byte; this machine's limits cross at "
        f"{data['ridge']:.3g}: {nearer}."
    )


def doubtful(data: Data) -> str | None:
    """What to mind: times of an emulated GPU, or rungs faster than the limit allows, when something disturbed its measurement."""
    if data.get("device", "cpu") != "cpu" and not data["gpu"]:
        return "the GPU is emulated: results are a GPU's, times are not"
    beyond = [r["rung"] for r in data["rungs"] if (r.get("share_of_peak") or 0) > ABOVE]
    if not beyond:
        return None
    return f"{', '.join(beyond)} above the limit: something else ran while the limit was measured; measure again"


def picture(data: Data, name: str) -> Picture:
    """Every rung's rate on a logarithmic scale, flight by flight, under the line of the peak."""
    lines = sum(len(_ran(rungs)) + 1 for _, rungs in flights(data))
    title = f"{data['op']}: rates of all rungs against the limit"
    return Picture(name, title, drawing(data), (8.4, 0.75 + ROW * lines))


def drawing(data: Data) -> Callable[[Any], None]:
    def draw(axes: Any) -> None:
        at, ticks = 0.0, []
        bound = data["peak_flops_per_second"] if data["bound"] == "arithmetic" else data["peak_bytes_per_second"]
        rates = [rate(r) or 0.0 for _, rungs in flights(data) for r in _ran(rungs)]
        low, top = min(rates) / 1.6, bound / 1e9
        for i, (title, rungs) in enumerate(flights(data)):
            if not _ran(rungs):
                continue
            axes.text(low, at, f" {title}", color=FAINT, fontsize=9, va="center")
            for rung in _ran(rungs):
                at += 1
                value = rate(rung) or 0.0
                axes.plot([low, value], [at, at], color=colour(i + 1), linewidth=2, alpha=0.45)
                axes.plot([value], [at], "o", color=colour(i + 1), markersize=6)
                gain = f" ({times(rung['gain'])})" if rung["gain"] else ""
                axes.annotate(f"{digits(value)}{gain}", (value, at), (9, 0), textcoords="offset points", va="center",
                              fontsize=9, bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5})  # fmt: skip
                ticks.append((at, rung["rung"].partition("/")[2]))
            at += 1.2
        axes.axvline(top, color=INK, linewidth=1.2, linestyle="--")
        axes.annotate(f"peak {digits(top)}", (top, -0.9), (5, 0), textcoords="offset points", va="center", color=INK,
                      fontsize=9, annotation_clip=False)  # fmt: skip
        axes.set_xscale("log")
        axes.set(xlim=(low, max(top, *rates) * 4), ylim=(at - 0.4, -1.5), xlabel=unit(data))
        axes.set_yticks([y for y, _ in ticks], [name for _, name in ticks])
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
        axes.grid(visible=False, axis="y")

    return draw


def page(data: Data, rungs: Sequence[Rung], command: str) -> str:
    """The whole page: the picture, all figures, and rung by rung the idea, its source, and what changed."""
    ran = [r for _, found in flights(data) for r in _ran(found)]
    best = max(ran, key=lambda r: rate(r) or 0.0)
    lead = f"{data['call']}: {len(ran)} kernels of one call, from the definition to the fastest. {roofline(data)}"
    if warning := doubtful(data):
        lead = f"{lead} Mind: {warning}."
    drawn = picture(data, "ladder")
    caption = f"Rate of every rung, {escape(unit(data))}; in brackets the gain over the rung below in its flight"
    figure = f'<figure class="broad climb"><figcaption>{caption}</figcaption>{drawn.element()}</figure>'
    tables = [
        report.html_table(COLUMNS, [cells(r, unit(data)) for r in _ran(found)], title, RIGHT)
        for title, found in flights(data) if _ran(found)
    ]  # fmt: skip
    refused = [(r["rung"], r["refusal"]) for r in data["rungs"] if r["refusal"]]
    if refused:
        tables.append(report.html_table(("rung", "why"), refused, "Not run here"))
    known = {rung.name: rung for rung in rungs}
    parts = "".join(_rung(r, known, r is best) for _, found in flights(data) for r in found)
    sections = [("The climb", f'<div class="charts">{figure}</div>'), ("Figures", "".join(tables)),
                ("Rung by rung", parts)]  # fmt: skip
    return report.page(f"The ladder of {data['op']}", lead, sections, command, style=STYLE)


def _rung(data: Data, known: dict[str, Rung], is_best: bool) -> str:
    rung = known[data["rung"]]
    facts = [("Idea", data["idea"])]
    if data.get("seconds") is not None:
        over = f", {times(data['gain'])} over {data['below']}" if data["gain"] else ""
        peak = f", {share(data['share_of_peak'])} of the peak" if data["share_of_peak"] else ""
        facts.append(("Measured", f"{readable(data['seconds'])}{peak}{over}{', the fastest' if is_best else ''}"))
        if data["loop"]:
            facts.append(("Inner loop", data["loop"]["text"]))
    else:
        facts.append(("Not run", data["refusal"]))
    if data["limit"]:
        facts.append(("Limited by", data["limit"]))
    if where := source.elsewhere(rung):
        facts.append(("C++ in", ", ".join(where)))
    below = known.get(data.get("below") or "")
    parts = [f"<h3>{escape(data['rung'])}</h3>", report.definitions(facts)]
    for file in source.sources(rung):
        parts.append(_code(file.path, file.text, file.language))
    if below is not None and (changed := source.diff(rung, below)):
        parts.append(_code(f"What changed from {below.name}", changed, "diff"))
    return "\n".join(parts)


def _code(title: str, text: str, language: str) -> str:
    """A listing that opens, its words coloured by the page."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name

    made = highlight(text, get_lexer_by_name(language), HtmlFormatter(cssclass="code"))
    return f"<details><summary>{escape(title)}</summary>{made}</details>"


def _ran(rungs: Sequence[Data]) -> list[Data]:
    return [r for r in rungs if r.get("seconds") is not None]


__all__ = [
    "COLUMNS",
    "RIGHT",
    "cells",
    "digits",
    "doubtful",
    "flights",
    "page",
    "picture",
    "rate",
    "roofline",
    "share",
    "times",
    "unit",
]
