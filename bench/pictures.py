"""Pictures of number formats: their values on a line, their spacing, their range, a block with its scale, a rounding.

`python -m ulpgrad.bench.pictures docs/pictures` writes those of docs/numbers.md; the study `range` shows the same ones.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ulpgrad.bench.lab.plots import FAINT, INK, RULE, SERIES, colour, dash, svg
from ulpgrad.bench.report import STYLE
from ulpgrad.errors import FormatError
from ulpgrad.formats import Array, Fixed, Format, as_format
from ulpgrad.formats.block import SCALE_BIAS, Block
from ulpgrad.formats.rounding import ROUNDINGS
from ulpgrad.io.atomic import atomic_write

BROAD = (8.4, 3.4)
WIDEST = 100  # binades that still fit a picture of spacing; wider formats run out of it
FEW = 64  # values that are still told apart on a line
DECIBELS = 20 * np.log10(2)  # in a binade
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Picture:
    """A drawing on matplotlib axes, and what it is called."""

    name: str
    title: str
    draw: Callable[[Any], None]
    inches: tuple[float, float] = BROAD

    def element(self) -> str:
        """An SVG element that takes its colours and letters from the page."""
        return svg(self.draw, self.name, self.title, self.inches)

    def file(self) -> str:
        """An SVG file of its own, which follows light and dark by itself."""
        width, height = (round(96 * inch) for inch in self.inches)
        head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}"'
        body = self.element().replace("<svg", head, 1)
        return re.sub(r"(<svg[^>]*>)", lambda m: f"{m[1]}<style>{_colours()}</style>", body, count=1) + "\n"


def number_line(form: Format | str) -> Picture:
    """Every finite value of a format as a stroke: all of them, and for floats of many values those around zero again."""
    form = as_format(form)
    values = magnitudes(form)
    normal = _smallest_normal(form)
    zoom = 4 * normal if len(values) > FEW and form.kind == "float" else None

    def draw(axes: Any) -> None:
        _strokes(axes, form, values, float(values[-1]))
        if zoom is not None:
            grid = axes.figure.add_gridspec(2, 1)
            axes.set_subplotspec(grid[0])
            below = axes.figure.add_subplot(grid[1])
            _strokes(below, form, values[values <= zoom], zoom)
            below.set_xlabel(
                f"the middle of it, {float(values[-1]) / zoom:,.0f} times as large", loc="left", fontsize=9
            )

    height = 0.8 if zoom is None else 1.9
    return Picture(f"line-{form.name}", f"Every value of {form.name}: {describe(form)}", draw, (8.4, height))


def spacing(formats: Iterable[Format | str]) -> Picture:
    """Distance between neighbouring values against magnitude, both by powers of two: floats climb, fixed point is level."""
    chosen = [as_format(f) for f in formats]

    def draw(axes: Any) -> None:
        for i, form in enumerate(chosen):
            x, y = staircase(form)
            axes.step(np.log2(x), np.log2(y), where="post", label=form.name, color=colour(i), linestyle=dash(i))
        shown = [f for f in chosen if np.log2(np.divide(*extent(f)[::-1])) < WIDEST] or chosen
        low, high = (f(np.log2([extent(form)[side] for form in shown])) for side, f in ((0, np.min), (1, np.max)))
        steps = np.log2([staircase(form)[1][[0, -1]] for form in shown])
        axes.set(xlim=(low - 2, high + 2), ylim=(steps.min() - 1.5, steps.max() + 1.5))
        powers_of_two(axes.xaxis)
        powers_of_two(axes.yaxis)
        axes.set(xlabel="magnitude", ylabel="distance to the next value")
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))

    title = "Spacing against magnitude of " + ", ".join(f.name for f in chosen)
    return Picture("spacing", title, draw, (8.4, 4.2))


def dynamic_range(formats: Iterable[Format | str]) -> Picture:
    """From the smallest value above zero to the largest, by powers of two; subnormal values pale."""
    chosen = [as_format(f) for f in formats]

    def draw(axes: Any) -> None:
        range_bars(axes, chosen)
        right = max(np.log2(extent(form)[1]) for form in chosen)
        for at, form in enumerate(chosen):
            low, high = extent(form)
            binades = np.log2(high) - np.log2(low)
            axes.annotate(
                f"{binades:.0f} binades, {DECIBELS * binades:.0f} dB",
                (right, at),
                (10, 0),
                va="center",
                textcoords="offset points",
                color=FAINT,
                fontsize=9,
                annotation_clip=False,
            )
        axes.set_yticks(range(len(chosen)), [f.name for f in chosen])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        powers_of_two(axes.xaxis)

    title = "Range of " + ", ".join(f.name for f in chosen)
    return Picture("range", title, draw, (8.4, 0.6 + 0.27 * len(chosen)))


def block(form: Format | str, seed: int = 3) -> Picture:
    """A block of 32 normal values, one ten times as large: what the shared scale leaves of the others."""
    form = as_format(form)
    if not isinstance(form, Block):
        raise FormatError(f"block: {form.name}: expected a block format, such as mxfp4_e2m1")
    values = np.random.default_rng(seed).normal(size=form.size).astype(np.float32)
    values[11] = 10.0
    stored = form.encode(values)
    kept = np.asarray(form.decode(stored))
    scale = 2.0 ** (int(stored.scales[0]) - SCALE_BIAS)

    def draw(axes: Any) -> None:
        grid = magnitudes(_element(form)) * scale
        if len(grid) <= FEW:
            axes.hlines(np.concatenate([-grid, grid]), -1, len(values), color=RULE, linewidth=0.6, zorder=0)
        at = np.arange(len(values))
        axes.vlines(at, np.minimum(values, kept), np.maximum(values, kept), color=colour(2), linewidth=2)
        axes.plot(at, values, "o", markerfacecolor="none", markeredgecolor=INK, markersize=6, label="given")
        axes.plot(at, kept, "o", color=colour(2), markersize=3.4, label="kept")
        axes.set_yscale("symlog", linthresh=1.0)
        axes.set_yticks([-3, -1, -0.5, 0, 0.5, 1, 3, 10], ["-3", "-1", "-0.5", "0", "0.5", "1", "3", "10"])
        axes.set(
            xlabel=f"place in the block; the block's scale is {power(np.log2(scale))}",
            xlim=(-1, len(values)),
            ylim=(-4, 14),
        )
        axes.grid(visible=False)
        axes.legend(loc="upper right", ncols=2)

    return Picture(f"block-{form.name}", f"A block of 32 values in {form.name}", draw, (8.4, 3.2))


def rounding(mode: str) -> Picture:
    """Where a mode sends each number between whole units; for the stochastic one the chance, by shade, and the mean."""
    x = np.linspace(-3, 3, 1200)
    whole = Fixed(7, 0)

    def rounded(values: Array) -> Array:
        return whole.exact(whole.encode(values, mode))

    def draw(axes: Any) -> None:
        axes.plot([-3, 3], [-3, 3], color=RULE, linewidth=1)
        if mode == "stochastic":
            for low in range(-3, 3):
                for part in np.arange(0, 1, 0.1):
                    span = [low + part, low + part + 0.1]
                    for target, chance in ((low, 0.95 - part), (low + 1, part + 0.05)):
                        axes.plot(span, [target, target], color=colour(1), alpha=float(np.clip(chance, 0.03, 1)),
                                  linewidth=4, solid_capstyle="butt")  # fmt: skip
            axes.plot([-3, 3], [-3, 3], color=INK, linewidth=1, linestyle="--", label="mean")
            axes.legend(loc="upper left")
        else:
            y = rounded(x)
            jumps = np.flatnonzero(np.diff(y)) + 1
            for part_x, part_y in zip(np.split(x, jumps), np.split(y, jumps), strict=True):
                axes.plot(part_x, part_y, color=colour(1), linewidth=3, solid_capstyle="butt")
            halves = np.arange(-3, 3.01, 0.5)
            axes.plot(halves, rounded(halves), "o", color=colour(1), markersize=5)
        axes.set(xticks=range(-3, 4), yticks=range(-3, 4), aspect="equal", xlabel="units", ylabel="rounded")

    return Picture(f"rounding-{mode}", f"Rounding: {mode.replace('_', ' ')}", draw, (3.2, 3.2))


# What the drawings are made of


def magnitudes(form: Format) -> Array:
    """All finite values of a small format from zero up, in float64. FormatError beyond 16 bits."""
    inner = _element(form)
    return np.asarray(inner.values()[: inner.max_code + 1], dtype=np.float64)


def extent(form: Format) -> tuple[float, float]:
    """The smallest value above zero and the largest; of a block, those of its element with any scale."""
    inner = _element(form)
    low = inner.scale if inner.kind == "fixed" else inner.smallest_subnormal
    if form.kind == "block":
        return low * 2.0**-127, inner.max * 2.0**127
    return float(low), float(inner.max)


def staircase(form: Format) -> tuple[Array, Array]:
    """Magnitudes at which the spacing changes, and the spacing from there on; the largest value ends it."""
    low, high = extent(form)
    if form.kind == "fixed":
        return np.array([low, high]), np.array([low, low])
    x = np.append(2.0 ** np.arange(np.floor(np.log2(low)), np.floor(np.log2(high)) + 1), high)
    return x, np.asarray(form.spacing(x))  # type: ignore[attr-defined]


def range_bars(axes: Any, formats: Sequence[Format], top: float = 0.0, height: float = 1.0) -> None:
    """The bars of `dynamic_range`, over log2 of the magnitude, one `height` apart from `top` on downwards."""
    for i, form in enumerate(formats):
        at, (low, high) = top + i * height, (np.log2(v) for v in extent(form))
        normal = np.log2(_smallest_normal(form)) if form.kind == "float" else low
        axes.barh(at, high - low, 0.62 * abs(height), left=low, color=colour(1), alpha=0.35, linewidth=0)
        axes.barh(at, high - normal, 0.62 * abs(height), left=normal, color=colour(1), linewidth=0)


def describe(form: Format) -> str:
    """What it has, in a line: bits, values, largest, smallest."""
    low, high = extent(form)
    return f"{form.bits} bits, {low:g} to {high:g}"


def power(exponent: float) -> str:
    """A power of two as one writes it: 2⁻²⁴."""
    return "2" + f"{round(exponent)}".translate(SUPERSCRIPT)


def _element(form: Format) -> Any:
    return form.element if form.kind == "block" else form  # type: ignore[attr-defined]


def _smallest_normal(form: Format) -> float:
    form = _element(form)
    return float(form.smallest_normal) if form.kind == "float" else float(form.scale)  # type: ignore[attr-defined]


def _strokes(axes: Any, form: Format, values: Array, reach: float) -> None:
    """One vertical stroke for each value and its negative; subnormal ones in another colour, zero tallest."""
    element, normal = _element(form), _smallest_normal(form)
    sides = [values, -values] if getattr(element, "signed", True) else [values]
    width = 1.4 if len(values) <= FEW else 0.7
    for side in sides:
        size = np.abs(side)
        for chosen, shade in ((size >= normal, colour(1)), ((size < normal) & (size > 0), colour(2))):
            x = np.repeat(side[chosen], 3)
            axes.plot(x, np.tile([0, 0.7, np.nan], len(x) // 3), color=shade, linewidth=width, solid_capstyle="butt")
    axes.plot([0, 0], [0, 1], color=INK, linewidth=width)
    low = -reach if len(sides) > 1 else 0.0
    axes.set(yticks=[], ylim=(0, 1.05), xlim=(low - 0.02 * reach, 1.02 * reach))
    if len(values) <= 8:
        axes.set_xticks(sorted({float(v) for side in sides for v in side}))
    axes.xaxis.set_major_formatter(lambda v, _: f"{v:g}")
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)


def powers_of_two(axis: Any) -> None:
    """Labels of an axis that holds exponents of two."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(nbins=9, steps=[1, 2, 4, 5, 8, 10], integer=True))
    axis.set_major_formatter(FuncFormatter(lambda v, _: power(v)))


def _colours() -> str:
    """The page's colours, light and dark, for an SVG that stands alone."""
    names = {"ink", "faint", "rule", "paper", *(f"s{i}" for i in range(SERIES))}
    light, dark = (
        ";".join(f"--{n}:{value}" for n, value in re.findall(r"--(\w+): (#\w+)", root) if n in names)
        for root in re.findall(r":root {(.*?)}", STYLE, re.DOTALL)[:2]
    )
    return (
        f"svg{{{light};font-family:system-ui,sans-serif;fill:var(--ink);background:var(--paper)}}"
        f"@media(prefers-color-scheme:dark){{svg{{{dark}}}}}"
    )


# Those of docs/numbers.md

LINES = ("float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "float8_e4m3fn", "float8_e5m2", "q3.4")
WIDE = ("float32", "bfloat16", "float16", "float8_e5m2", "float8_e4m3fn", "float6_e3m2fn", "float6_e2m3fn",
        "float4_e2m1fn", "q7.8", "q3.4")  # fmt: skip
STAIRS = ("float16", "bfloat16", "float8_e5m2", "float8_e4m3fn", "q7.8")
BLOCKS = ("mxfp8_e4m3", "mxfp4_e2m1")


def pictures() -> list[Picture]:
    """All pictures of docs/numbers.md."""
    return [
        *map(number_line, LINES),
        spacing(STAIRS),
        dynamic_range(WIDE),
        *map(block, BLOCKS),
        *map(rounding, ROUNDINGS),
    ]


def write(folder: Path) -> list[Path]:
    """Write all of them; the same bits from the same code and matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for picture in pictures():
        path = folder / f"{picture.name}.svg"
        with atomic_write(path, text=True) as file:
            file.write(picture.file())
        written.append(path)
    return written


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m ulpgrad.bench.pictures FOLDER")
    for made in write(Path(sys.argv[1])):
        print(made)

__all__ = ["Picture", "block", "describe", "dynamic_range", "extent", "magnitudes", "number_line", "pictures",
           "powers_of_two", "range_bars", "rounding", "spacing", "staircase", "write"]  # fmt: skip
