"""The tables and the page of a comparison, from its outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from ulpgrad.bench import report
from ulpgrad.bench.lab.plots import FAINT, INK, colour, dash, plain_ticks, svg
from ulpgrad.bench.peers.sweeps import SWEEPS, worst
from ulpgrad.bench.peers.work import Outcome

COLUMNS = ("work", "ours", "limit", "share", "best peer", "its rate", "ratio", "target", "came to", "")
RIGHT = ("ours", "limit", "share", "its rate", "ratio", "came to", "error", "of the best peer")
ERRORS = ("work", "error", "of the best peer", "every error")
BROAD = (8.4, 3.6)
BEHIND = 15  # points behind a peer that are shown


def rows(found: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """A line for each target of each row, in COLUMNS; what does not change is written once."""
    lines = []
    for o in found:
        facts = (o.work, f"{rate(o.rate)} {o.unit}", rate(o.limit), "" if o.share is None else f"{o.share:.0%}",
                 o.best or "", rate(o.peers[o.best] if o.best else None), times(o.ratio))  # fmt: skip
        for i, v in enumerate(o.verdicts or (None,)):
            judged = ("", "", "") if v is None else (v.target, came_to(v.target, v.ratio), verdict(v))
            lines.append((*(facts if i == 0 else ("",) * len(facts)), *judged))
    return lines


def verdict(v: Any) -> str:
    """In words; where the machine's limit forbids the target, how much it leaves."""
    return f"{v.text}: the limit allows {times(v.allowed)}" if v.text == "out of reach" else v.text


def came_to(target: str, ratio: float | None) -> str:
    """A share of the limit or a ratio."""
    return "" if ratio is None else f"{ratio:.0%}" if target.endswith("limit") else times(ratio)


def others(found: Sequence[Outcome]) -> list[tuple[str, str, str]]:
    """Every peer's rate, and notes."""
    return [(o.work, ", ".join(f"{name} {rate(r)}" for name, r in o.peers.items()), "; ".join(o.notes)) for o in found]


def errors(found: Sequence[Outcome]) -> list[tuple[str, str, str, str]]:
    """Ours beside the smallest of the peers, where results are held against float64."""
    lines = []
    for o in found:
        if "ulpgrad" in o.errors:
            peers = {name: e for name, e in o.errors.items() if name != "ulpgrad"}
            least = f"{min(peers.values()):.3g}" if peers else ""
            every = ", ".join(f"{name} {e:.3g}" for name, e in peers.items())
            lines.append((o.work, f"{o.errors['ulpgrad']:.3g}", least, every))
    return lines


def behind(found: Mapping[str, list[Outcome]]) -> list[tuple[str, str, str, str, str]]:
    """The worst points of all sweeps."""
    return [
        (name, o.work, f"{rate(o.rate)} {o.unit}", f"{o.best} {rate(o.peers[o.best or ''])}", times(o.ratio))
        for name, o in worst(found)[:BEHIND]
    ]


def rate(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def times(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}x" if value >= 100 else f"{value:.2f}x"


def peers_page(found: Sequence[Outcome], command: str) -> str:
    """The whole page of the table."""
    reached = [v for o in found for v in o.verdicts if v.met is not None]
    lead = (
        f"{sum(bool(v.met) for v in reached)} of {len(reached)} targets met in one run. Rates are medians of samples taken in "
        "turns; shares are of limits measured in the same run."
    )
    sections = [("Rates", report.html_table(COLUMNS, rows(found), "Beside the fastest peer, and the targets", RIGHT))]
    if lines := errors(found):
        sections.append(("Errors", report.html_table(ERRORS, lines, "Norm of the error over the norm of the float64 result",
                                                     RIGHT)))  # fmt: skip
    every = report.html_table(("work", "rates", "notes"), others(found), "In the unit of the row")
    sections.append(("Every peer", every))
    return report.page("ulpgrad beside its peers", lead, sections, command)


def sweep_page(found: Mapping[str, list[Outcome]], command: str) -> str:
    """The whole page of sweeps: a picture of each, then the points in which a peer was faster, then all figures."""
    pictures = [
        f'<figure class="broad"><figcaption>{escape(name)}, {escape(outcomes[0].unit)}</figcaption>'
        f"{svg(drawing(name, outcomes), f'sweep-{i}', name, BROAD)}</figure>"
        for i, (name, outcomes) in enumerate(found.items())
        if outcomes
    ]
    points = sum(map(len, found.values()))
    slower = worst(found)
    lead = f"{points - len(slower)} of {points} points not slower than the fastest peer, beyond the noise of both."
    sections = [("Pictures", f'<div class="charts">{"".join(pictures)}</div>')]
    if slower:
        columns = ("sweep", "size", "ours", "peer", "ratio")
        made = report.html_table(columns, behind(found), "The worst points", ("ours", "peer", "ratio"))
        sections.append(("Behind a peer", made))
    for name, outcomes in found.items():
        names = sorted({peer for o in outcomes for peer in o.peers})
        lines = [(o.work, rate(o.rate), *(rate(o.peers.get(peer)) for peer in names), times(o.ratio)) for o in outcomes]
        heads = ("size", "ulpgrad", *names, "ratio")
        sections.append((name, report.html_table(heads, lines, outcomes[0].unit, heads[1:])))
    return report.page("ulpgrad beside its peers, at many sizes", lead, sections, command)


def drawing(name: str, outcomes: Sequence[Outcome]) -> Callable[[Any], None]:
    """Draws rates over sizes on matplotlib axes; sizes without an order stand side by side."""
    sweep = SWEEPS[name]
    is_ordered = all(isinstance(size, int) for size in sweep.sizes)

    def draw(axes: Any) -> None:
        names = ["ulpgrad", *sorted({peer for o in outcomes for peer in o.peers})]
        at = [float(o.work) for o in outcomes] if is_ordered else list(range(len(outcomes)))
        for i, contender in enumerate(names):
            pairs = [(x, o.rate if i == 0 else o.peers.get(contender)) for x, o in zip(at, outcomes, strict=True)]
            drawn = [(x, y) for x, y in pairs if y is not None]
            style = {"color": INK, "linewidth": 2.6} if i == 0 else {"color": colour(i), "linestyle": dash(i)}
            if not is_ordered:
                style |= {"linestyle": "none", "marker": "osD^v"[i % 5], "markersize": 9 if i == 0 else 6}
            axes.plot(*zip(*drawn, strict=True), label=contender, **style)
        limits = [o.limit for o in outcomes if o.limit and not name.startswith(("softmax", "layer_norm"))]
        if limits:
            axes.axhline(limits[-1], color=FAINT, linewidth=1, linestyle="--", label="measured limit")
        axes.set_ylim(bottom=0)
        if is_ordered:
            axes.set_xscale("log", base=2)
            plain_ticks(axes.xaxis)
        else:
            axes.set_xticks(at, [o.work for o in outcomes], rotation=35, ha="right")
        axes.set(xlabel=sweep.x_label, ylabel=outcomes[0].unit)
        axes.figure.legend(loc="outside lower center", ncols=len(names) + 1)

    return draw


__all__ = ["BROAD", "COLUMNS", "ERRORS", "RIGHT", "behind", "came_to", "drawing", "errors", "others", "peers_page", "rate",
           "rows", "sweep_page", "times", "verdict", "worst"]  # fmt: skip
