"""Plots: drawn with matplotlib, embedded as SVG whose colours and letters are the page's, in light, dark and on paper."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import product
from typing import Any

from ulpgrad.bench.lab.results import MAIN, NotRun, Results
from ulpgrad.errors import DataError

# Colours that stand for the page's: replaced by CSS variables once matplotlib has drawn.
INK, FAINT, RULE, PAPER = "#010101", "#010102", "#010103", "#010104"
SERIES = 8
VARIABLES = {INK: "ink", FAINT: "faint", RULE: "rule", PAPER: "paper"} | {
    f"#0202{i:02x}": f"s{i}" for i in range(SERIES)
}
PLATE = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.8, "alpha": 0.75}  # behind names
DASHES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (7, 2)), (0, (3, 1, 1, 1)))
INCHES = (5.4, 3.5)
LONG = 19  # letters of a label: three of these do not fit side by side
SETTINGS: Any = {
    "svg.fonttype": "none", "font.size": 9.5, "text.color": INK, "axes.edgecolor": RULE, "axes.labelcolor": FAINT,
    "xtick.color": RULE, "ytick.color": RULE, "xtick.labelcolor": FAINT, "ytick.labelcolor": FAINT, "grid.color": RULE,
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none", "axes.grid": True,
    "grid.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "legend.frameon": False, "legend.fontsize": 9, "lines.linewidth": 1.8, "patch.edgecolor": PAPER, "hatch.color": PAPER,
    "axes.formatter.use_mathtext": False, "axes.unicode_minus": True, "xtick.minor.visible": False,
}  # fmt: skip
Draw = Callable[[Any, Results], None]


@dataclass(frozen=True)
class Plot:
    """A picture under its title. `draw(axes, results)`; NotRun inside leaves the picture out. `inches`: width, height;
    `wide`: over the whole page instead of half of it."""

    title: str
    draw: Draw
    note: str = ""
    inches: tuple[float, float] = INCHES
    wide: bool = False

    def html(self, results: Results, name: str) -> str:
        """A figure element, or nothing. `name` tells its inner names from those of other pictures on the page."""
        try:
            drawn = svg(lambda axes: self.draw(axes, results), name, self.title, self.inches)
        except NotRun:
            return ""
        note = f'<p class="note">{escape(self.note)}</p>' if self.note else ""
        kind = ' class="broad"' if self.wide else ""
        return f"<figure{kind}><figcaption>{escape(self.title)}</figcaption>{drawn}{note}</figure>"


def colour(i: int) -> str:
    """The page's colour of series i (0 is the ink: the yardstick)."""
    return f"#0202{i % SERIES:02x}"


def dash(i: int) -> Any:
    """A line style for series i, so that lines are told apart without colours."""
    return DASHES[i % len(DASHES)]


def svg(draw: Callable[[Any], None], name: str, title: str, inches: tuple[float, float] = INCHES) -> str:
    """What `draw` draws on axes, as an SVG element of the page. DataError if matplotlib is not installed."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DataError("the plots of a study need matplotlib: pip install 'ulpgrad[lab]'") from error
    with mpl.rc_context({**SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure.subplots())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return embedded(file.getvalue(), name, title)


def embedded(text: str, name: str, title: str) -> str:
    """An SVG file as an element of an HTML page: no header, no metadata, the page's colours and letters, own names."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", text)
    size = re.search(r'viewBox="[^"]*"', text)
    head = f'<svg {size.group(0) if size else ""} role="img" aria-label="{escape(title)}">'
    text = re.sub(r"<svg[^>]*>", head, text, count=1)
    text = text.replace("xlink:href", "href")
    text = re.sub(
        r"font: (?:(\d+) )?([\d.]+px) [^;\"]*",
        lambda m: f"font-size: {m[2]}" + (f"; font-weight: {m[1]}" if m[1] else ""),
        text,
    )
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(url\(#|href="#)', rf"\1{name}-", text)
    return re.sub(r"#0[12]0[12][0-9a-f]{2}", lambda m: f"var(--{VARIABLES[m[0]]})", text).strip()


# Ready-made drawings


def curves(
    figure: str, label: str, rows: Sequence[str] | None = None, *, log: bool = True, steps: bool = False
) -> Draw:
    """A figure over epochs (or steps), a line for each row: the mean over seeds."""

    def draw(axes: Any, results: Results) -> None:
        shown = [row for row in results.rows if rows is None or row in rows]
        if not shown:
            raise NotRun(figure)
        for i, row in enumerate(shown):
            values = results.curve(row, figure)
            style = (
                {"color": INK, "linewidth": 4, "alpha": 0.3} if i == 0 else {"color": colour(i), "linestyle": dash(i)}
            )
            marker = "o" if len(values) == 1 else None
            axes.plot(range(1, len(values) + 1), [v if v > 0 or not log else math.nan for v in values],
                      label=results.label(row), marker=marker, **style)  # fmt: skip
        if log:
            axes.set_yscale("log")
        plain_ticks(axes.yaxis, share="error" in label)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set(xlabel="step" if steps else "epoch", ylabel=label)
        longest = max(len(results.label(row)) for row in shown)
        axes.figure.legend(loc="outside lower center", ncols=3 if longest < LONG else 2)

    return draw


def bars(
    label: str, figure: str = MAIN, expected: Any = None, *, rows: Sequence[str] | None = None, log: bool = True
) -> Draw:
    """A figure for each row with its 95 % interval, and a hollow diamond where something else was expected."""

    def draw(axes: Any, results: Results) -> None:
        share = "error" in label
        shown = [row for row in results.rows if rows is None or row in rows]
        for at, row in enumerate(shown):
            found = results.estimate(row, figure)
            half = found.half or 0.0
            high = min(found.mean + half, 1.0) if share else found.mean + half
            low = max(found.mean - half, min(found.values, default=0.0) / 2) if log else found.mean - half
            axes.plot([low, high], [at, at], color=colour(1), alpha=0.45, linewidth=5, solid_capstyle="butt")
            axes.plot(found.values, [at] * len(found.values), "o", color=colour(1), markersize=4)
            known = (expected or {}).get(row, {}).get(figure)
            if known is not None:
                axes.plot([known], [at], "D", markerfacecolor="none", markeredgecolor=INK, markersize=7)
        if log:
            axes.set_xscale("log")
        plain_ticks(axes.xaxis, share=share)
        axes.set_yticks(range(len(shown)), [results.label(row) for row in shown])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(label)

    return draw


def plain_ticks(axis: Any, *, share: bool = False) -> None:
    """Numbers as they are read: 2%, 0.1, 1e-4; on a logarithmic axis over few decades also between the powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v * 100:g}%" if share else f"{v:g}"))
    low, high = axis.get_view_interval()
    if axis.get_scale() == "log":
        axis.set_minor_formatter(NullFormatter())
        if low > 0 and high / low < 300:
            axis.set_major_locator(LogLocator(10, (1, 2, 5)))


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Those that no other beats in both, by the first coordinate: the Pareto front, where less is better."""
    best: list[tuple[float, float]] = []
    for x, y in sorted(set(points)):
        if not best or y < best[-1][1]:
            best.append((x, y))
    return best


def named(axes: Any, points: Sequence[tuple[float, float, str]], others: Sequence[tuple[float, float]] = ()) -> None:
    """Names of points, near them but clear of all points, of `others`, which have none, and of each other; with a line where
    they had to go far."""
    from matplotlib.transforms import Bbox

    figure = axes.figure
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # places are measured from here on
    scale = figure.dpi / 72
    where = axes.transData.transform([(x, y) for x, y, _ in points])
    inside = axes.get_window_extent()
    marks = [*where, *(axes.transData.transform(list(others)) if others else ())]
    taken = [Bbox.from_bounds(x - 4 * scale, y - 4 * scale, 8 * scale, 8 * scale) for x, y in marks]
    for (px, py), (x, y, text) in sorted(zip(where, points, strict=True), key=lambda p: (-p[0][1], p[0][0])):
        name = axes.annotate(text, (x, y), (0, 0), textcoords="offset points", va="center", fontsize=8.5)
        size = name.get_window_extent()
        name.remove()
        chosen = None
        for away, angle in product(
            (8, 14, 22, 32, 44, 58, 74, 92), (0, 180, 30, -30, 150, -150, 60, -60, 120, -120, 90, -90)
        ):
            right, up = away * math.cos(math.radians(angle)), away * math.sin(math.radians(angle))
            left = right if right > 1 else right - size.width / scale if right < -1 else right - size.width / scale / 2
            box = Bbox.from_bounds(px + left * scale, py + up * scale - size.height / 2, size.width, size.height)
            clear = not any(box.overlaps(other) for other in taken)
            if clear and inside.y0 < box.y0 and box.y1 < inside.y1 and inside.x0 < box.x0 and box.x1 < inside.x1:
                chosen = left, up, box, away
                break
        if chosen is None:
            chosen = 8.0, 0.0, size, 8
        left, up, box, away = chosen
        line = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(text, (x, y), (left, up), textcoords="offset points", va="center", fontsize=8.5, bbox=PLATE,
                      arrowprops=line if away > 8 else None)  # fmt: skip
        taken.append(box)


__all__ = ["DASHES", "FAINT", "INK", "PAPER", "RULE", "Plot", "bars", "colour", "curves", "dash", "embedded",
           "front", "named", "plain_ticks", "svg"]  # fmt: skip
