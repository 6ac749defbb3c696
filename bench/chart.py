"""Line charts as inline SVG that follow the page's colours, so that one drawing serves light, dark and paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 10, 40
DASHES = ("", "9 4", "2 4", "9 3 2 3", "14 5")


@dataclass(frozen=True)
class Line:
    """A named curve: y over 1, 2, 3, ..., and optionally the range it is the middle of. `style` numbers its look."""

    name: str
    y: Sequence[float]
    style: int
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def line_chart(lines: Sequence[Line], x_label: str, y_label: str) -> str:
    """The lines on a logarithmic scale; values that are not above 0 are left out."""
    values = [v for line in lines for curve in (line.y, line.low or (), line.high or ()) for v in curve if v > 0]
    if not values:
        return "<p>Nothing above zero to draw.</p>"
    bottom, top = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    top = max(top, bottom + 1)
    count = max(len(line.y) for line in lines)

    def x(i: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (i - 1) / max(count - 1, 1)

    def y(v: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (top - math.log10(v)) / (top - bottom)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label)} over {escape(x_label)}">',
        *_grid(bottom, top, y),
        *_ticks(count, x),
        f'<text class="axis" x="{(WIDTH + LEFT) / 2:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>',
    ]
    for line in lines:
        if line.low is not None and line.high is not None:
            band = [(i + 1, lo, hi) for i, (lo, hi) in enumerate(zip(line.low, line.high, strict=True)) if lo > 0]
            around = [f"{x(i):.1f},{y(hi):.1f}" for i, _, hi in band]
            around += [f"{x(i):.1f},{y(lo):.1f}" for i, lo, _ in reversed(band)]
            parts.append(f'<polygon class="band s{line.style}" points="{" ".join(around)}"/>')
    for line in lines:
        points = " ".join(f"{x(i + 1):.1f},{y(v):.1f}" for i, v in enumerate(line.y) if v > 0)
        parts.append(f'<polyline class="line s{line.style}" stroke-dasharray="{_dash(line.style)}" points="{points}">'
                     f"<title>{escape(line.name)}</title></polyline>")  # fmt: skip
    return "\n".join([*parts, "</svg>"])


def legend(names: Sequence[tuple[str, int]]) -> str:
    """Names beside samples of their lines."""
    items = [
        f'<li><svg viewBox="0 0 36 10" aria-hidden="true"><line class="line s{style}" x1="0" y1="5" x2="36" y2="5" '
        f'stroke-dasharray="{_dash(style)}"/></svg>{escape(name)}</li>'
        for name, style in names
    ]
    return f'<ul class="legend">{"".join(items)}</ul>'


def _dash(style: int) -> str:
    return DASHES[style % len(DASHES)]


def _grid(bottom: int, top: int, y: Callable[[float], float]) -> list[str]:
    step = max(1, math.ceil((top - bottom) / 6))
    parts = []
    for power in range(bottom, top + 1, step):
        at = y(10.0**power)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_power(power)}</text>')
    return parts


def _power(power: int) -> str:
    return f"{10.0**power:g}" if -3 <= power <= 3 else f"1e{power}"


def _ticks(count: int, x: Callable[[float], float]) -> list[str]:
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if count / s <= 7)
    marks = [1, *range(step, count + 1, step)] if step > 1 else list(range(1, count + 1))
    return [
        f'<text class="tick" x="{x(i):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{i}</text>' for i in marks
    ]


__all__ = ["Line", "legend", "line_chart"]
