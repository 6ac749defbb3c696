"""Drawings of a run: roofline, rates over sizes, error against time, errors in units in the last place, ranges of formats.

Each takes plain points and matplotlib axes; what they mean is decided in `sections`. Series are told apart by shape as well as
by colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ulpgrad.bench.lab.plots import FAINT, INK, PAPER, RULE, colour, dash, front, named, plain_ticks
from ulpgrad.bench.pictures import extent, power, powers_of_two, range_bars
from ulpgrad.bench.timing import UNITS
from ulpgrad.formats import Format

WIDE = 10.8  # inches of a picture over the whole page: letters are then as large as in those over half of it
BROAD = (WIDE, 4.6)
SHAPES = "oDs^vP*X"
LETTERS = 17  # of a legend in an inch
FEW = 8  # points that all have names
MANY = 18  # points from which only some are named
HUGE = 1e30  # an error as large as that has no end
FAR = 200  # a power of two that float64 reaches alone: its bar runs out of the picture


@dataclass(frozen=True)
class Point:
    """A mark: where, what it is called, and which series it belongs to. `low` and `high`: the noise of y."""

    x: float
    y: float
    name: str = ""
    series: str = ""
    low: float | None = None
    high: float | None = None


def series_of(points: Sequence[Point]) -> list[str]:
    """Names of the series, in the order in which they come."""
    return list(dict.fromkeys(p.series for p in points))


def look(i: int) -> dict[str, Any]:
    """How the marks of series i look; 0 is the yardstick's, the largest."""
    return {"marker": SHAPES[i % len(SHAPES)], "color": INK if i == 0 else colour(i), "linestyle": "none",
            "markersize": 6.5 if i == 0 else 5, "markeredgecolor": PAPER, "markeredgewidth": 0.6}  # fmt: skip


def legend(axes: Any) -> None:
    """Below the picture, where it hides nothing, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        fit = int(axes.figure.get_figwidth() * LETTERS / (max(map(len, labels)) + 7))
        axes.figure.legend(handles, labels, loc="outside lower center", ncols=max(1, min(fit, len(labels))))


def roofline(axes: Any, roofs: Mapping[str, tuple[float, float]], points: Sequence[Point]) -> None:
    """Operations a second (y) against operations for each byte moved (x), below what arithmetic and memory allow.

    `roofs`: name -> operations and bytes a second. A point above its roof is an error of the benchmark.
    """
    left = min([p.x for p in points] + [0.05]) / 1.6
    right = max([p.x for p in points] + [200.0]) * 1.6
    axes.set(xscale="log", yscale="log", xlabel="operations for each byte moved", ylabel="G operations a second")
    labels: list[tuple[float, str]] = []
    for i, (name, (flops, memory)) in enumerate(roofs.items()):
        ridge = flops / memory
        knees = [left, max(ridge, left), right]
        heights = [min(flops, memory * x) / 1e9 for x in knees]
        axes.plot(knees, heights, color=FAINT, linewidth=1.1, linestyle=dash(i), zorder=1)
        labels.append((heights[-1], name))
    for i, series in enumerate(series_of(points)):
        own = [p for p in points if p.series == series]
        axes.plot([p.x for p in own], [p.y / 1e9 for p in own], label=series, zorder=3 if i == 0 else 2,
                  alpha=1 if i == 0 else 0.75, **look(i))  # fmt: skip
    axes.set_xlim(left, right)
    place = math.inf
    low, high = (math.log(v) for v in axes.get_ylim())
    for height, name in sorted(labels, reverse=True):  # one below the other, however near the limits are
        place = min(math.log(height), place - 0.05 * (high - low))
        axes.annotate(name, (right, math.exp(place)), (5, 0), textcoords="offset points", va="center", fontsize=8.5,
                      color=FAINT, annotation_clip=False)  # fmt: skip
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    legend(axes)
    first = [p for p in points if p.series == series_of(points)[0]] if points else []
    chosen = spread(first)
    named(axes, [(p.x, p.y / 1e9, p.name) for p in chosen], [(p.x, p.y / 1e9) for p in points if p not in chosen])


def spread(points: Sequence[Point]) -> list[Point]:
    """At most MANY of the points, those furthest from each other in logarithms first, so that names do not lie in a heap."""
    left = list(points)
    if len(left) <= MANY:
        return left
    kept = [left.pop(0)]
    while left and len(kept) < MANY:

        def alone(p: Point) -> float:
            return min(math.hypot(math.log(p.x / q.x), math.log(p.y / q.y)) for q in kept)

        kept.append(max(left, key=alone))
        left.remove(kept[-1])
    return kept


def sweep(axes: Any, points: Sequence[Point], limits: Sequence[tuple[float, float]], x_label: str, unit: str) -> None:
    """Rates over sizes, a line for each series with its noise as a band, and the measured limit."""
    for i, series in enumerate(series_of(points)):
        own = sorted((p for p in points if p.series == series), key=lambda p: p.x)
        shade = INK if i == 0 else colour(i)
        x = [p.x for p in own]
        axes.fill_between(x, [p.y if p.low is None else p.low for p in own],
                          [p.y if p.high is None else p.high for p in own], color=shade, alpha=0.14, linewidth=0)  # fmt: skip
        axes.plot(x, [p.y for p in own], label=series, color=shade, linestyle="-" if i == 0 else dash(i),
                  linewidth=2.4 if i == 0 else 1.6, marker=SHAPES[i % len(SHAPES)], markersize=4)  # fmt: skip
    if limits:
        axes.plot(
            *zip(*sorted(limits), strict=True),
            color=FAINT,
            linewidth=1.1,
            linestyle=(0, (1, 2)),
            label="measured limit",
        )
    axes.set(xscale="log", ylim=(0, None), xlabel=x_label, ylabel=unit)
    axes.set_xscale("log", base=2)
    shown = apart(sorted({p.x for p in points}))
    axes.set_xticks(shown, [count(x) for x in shown])
    axes.minorticks_off()
    legend(axes)


def apart(sizes: Sequence[float], most: int = 9) -> list[float]:
    """Those of rising sizes whose names do not run into each other on a logarithmic axis."""
    least = math.log(sizes[-1] / sizes[0]) / most
    shown = list(sizes[:1])
    for x in sizes[1:]:
        if math.log(x / shown[-1]) > least:
            shown.append(x)
    return shown


def count(x: float) -> str:
    """A size in few letters: 1000, 64K, 4M, by powers of two where it is a multiple of one."""
    for unit, power_of_two in (("M", 1 << 20), ("K", 1 << 10)):
        if x >= 10_000 and x % power_of_two == 0:
            return f"{x / power_of_two:.0f}{unit}"
    return f"{x:.3g}" if x >= 1e6 else f"{x:.0f}"


def pareto(
    axes: Any, points: Sequence[Point], x_label: str, y_label: str, text: Callable[[float], str] | None = None
) -> None:
    """Error (y) against a cost (x), which is seconds or what `text` makes readable: the front is where nothing is better in both.
    Results without an error stand on the floor. Of many points, those of the first series and of the front have names."""
    from matplotlib.ticker import FuncFormatter

    positive = [p.y for p in points if p.y > 0]
    floor = min(positive, default=1e-16) / 30
    at = [Point(p.x, p.y if p.y > 0 else floor, p.name, p.series, p.low, p.high) for p in points]
    best = front([(p.x, p.y) for p in at])
    axes.step([x for x, _ in best], [y for _, y in best], where="post", color=FAINT, linewidth=1, linestyle="--")
    for i, series in enumerate(series_of(at)):
        own = [p for p in at if p.series == series]
        for p in own:
            if p.low is not None and p.high is not None:
                axes.plot([p.low, p.high], [p.y, p.y], color=INK if i == 0 else colour(i), alpha=0.35, linewidth=2)
        axes.plot([p.x for p in own], [p.y for p in own], label=series, **look(i))
    axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
    axes.margins(x=0.14, y=0.14)
    if len(positive) < len(points):
        axes.axhline(floor, color=RULE, linewidth=0.8)
        axes.annotate("exact", (1, floor), (-2, 3), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
                      fontsize=8.5, color=FAINT)  # fmt: skip
    plain_ticks(axes.xaxis)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: (text or brief)(v)))
    plain_ticks(axes.yaxis)
    if len(series_of(at)) > 1:
        legend(axes)
    first = series_of(at)[:1]
    chosen = [p for p in at if len(at) <= FEW or [p.series] == first or (p.x, p.y) in best]
    named(axes, [(p.x, p.y, p.name) for p in chosen], [(p.x, p.y) for p in at if p not in chosen])


def brief(seconds: float) -> str:
    """A time on an axis: 50 us, 2 ms."""
    unit, scale = next(((u, s) for u, s in UNITS if seconds >= s * 0.9999), ("ns", 1e-9))
    return f"{seconds / scale:.3g} {unit}"


def ulps(axes: Any, histograms: Mapping[str, Sequence[tuple[float, float, float]]]) -> None:
    """Shares of results (x) by their error in units in the last place (bands from below): a row of bars for each name."""
    counted = {(low, high): 0.0 for bins in histograms.values() for low, high, _ in bins}
    for low, high, n in (b for bins in histograms.values() for b in bins):
        counted[low, high] += n
    bands = sorted(counted)
    while len(bands) > 1 and not counted[bands[-1]]:  # nothing is that wrong
        bands.pop()
    count = len(histograms)
    for i, (name, bins) in enumerate(histograms.items()):
        total = sum(n for *_, n in bins) or 1
        shares = {(low, high): n / total for low, high, n in bins}
        at = [k + (i - (count - 1) / 2) * 0.8 / count for k in range(len(bands))]
        axes.bar(at, [shares.get(b, 0.0) for b in bands], 0.8 / count, label=name, color=INK if i == 0 else colour(i),
                 linewidth=0.4)  # fmt: skip
    axes.set_yscale("symlog", linthresh=1e-4, linscale=0.4)
    axes.set_ylim(0, 1.3)
    axes.set_yticks([0, 1e-4, 1e-3, 1e-2, 0.1, 1], ["0", "0.01%", "0.1%", "1%", "10%", "100%"])
    axes.minorticks_off()
    axes.set_xticks(range(len(bands)), [band(*b) for b in bands], rotation=30 if len(bands) > 8 else 0)
    axes.grid(visible=False, axis="x")
    axes.set(xlabel="units in the last place from the float64 result", ylabel="share of results")
    legend(axes)


def band(low: float, high: float) -> str:
    """A range of errors in few letters."""
    if low == high:
        return f"{low:g}"
    return f"over {low:g}" if high > HUGE else f"≤ {high:g}"


def ranges(axes: Any, formats: Sequence[Format], losses: Mapping[str, Mapping[str, tuple[float, float]]]) -> None:
    """What each format reaches, subnormal values pale, and beside its bar what was lost below and above it in the worst op."""
    from matplotlib.transforms import blended_transform_factory

    range_bars(axes, formats)
    for at, form in enumerate(formats):
        found = losses.get(form.name, {})
        low, high = (math.log2(v) for v in extent(form))
        for side, x, ha, away in ((1, low, "right", -5), (0, high, "left", 5)):
            op, share = max(((op, pair[side]) for op, pair in found.items()), key=lambda f: f[1], default=("", 0.0))
            if share > 0:
                axes.annotate(f"{percent(share)} {op}", (x, at), (away, 0), textcoords="offset points", ha=ha, va="center",
                              fontsize=8.5, color=colour(2), annotation_clip=False)  # fmt: skip
    axes.set_yticks(range(len(formats)), [f.name for f in formats])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.22)
    near = [[math.log2(v) for v in extent(f)] for f in formats if math.log2(extent(f)[1]) < FAR]
    if near:
        low, high = min(pair[0] for pair in near), max(pair[1] for pair in near)
        axes.set_xlim(low - 0.22 * (high - low), high + 0.22 * (high - low))
    powers_of_two(axes.xaxis)
    over = blended_transform_factory(axes.transAxes, axes.transAxes)
    axes.text(0, 1.02, "← becomes zero", transform=over, fontsize=8.5, color=FAINT)
    axes.text(1, 1.02, "overflows →", transform=over, fontsize=8.5, color=FAINT, ha="right")


def percent(share: float) -> str:
    """A share as one reads it: 12%, 0.3%, below 0.01%."""
    return "<0.01%" if 0 < share < 1e-4 else f"{share:.0%}" if share >= 0.1 or share == 0 else f"{100 * share:.2g}%"


__all__ = ["BROAD", "Point", "band", "legend", "look", "pareto", "percent", "power", "ranges", "roofline", "series_of",
           "spread", "sweep", "ulps"]  # fmt: skip
