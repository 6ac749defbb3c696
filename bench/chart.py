"""Line charts as inline SVG that follow the page's colours, so that one drawing serves light, dark and paper."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 290
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 10, 42
MARGIN = 0.04  # of the range of values, above and below
DASHES = ("", "9 4", "2 4", "9 3 2 3", "14 5")


@dataclass(frozen=True)
class Line:
    """A named curve: y over 1, 2, 3, ... `style` numbers its look; 0 is a broad line that others are seen on."""

    name: str
    y: Sequence[float]
    style: int


def line_chart(lines: Sequence[Line], x_label: str, y_label: str) -> str:
    """The lines on a logarithmic scale; values that are not above 0 are left out."""
    values = [math.log10(v) for line in lines for v in line.y if v > 0]
    if not values:
        return "<p>Nothing above zero to draw.</p>"
    margin = max(max(values) - min(values), 0.1) * MARGIN
    bottom, top = min(values) - margin, max(values) + margin
    count = max(len(line.y) for line in lines)

    def x(i: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((i - 1) / (count - 1) if count > 1 else 0.5)

    def y(v: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (top - math.log10(v)) / (top - bottom)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label)} over {escape(x_label)}">',
        *_grid(bottom, top, y),
        *_ticks(count, x),
        f'<text class="tick" x="{(WIDTH + LEFT) / 2:.0f}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>',
    ]
    for line in sorted(lines, key=lambda line: line.style):
        drawn = [(x(i + 1), y(v)) for i, v in enumerate(line.y) if v > 0]
        if len(drawn) == 1:  # a line of one point is not seen
            parts.append(f'<circle class="dot s{line.style}" cx="{drawn[0][0]:.1f}" cy="{drawn[0][1]:.1f}" r="4"/>')
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in drawn)
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


def _grid(bottom: float, top: float, y: Callable[[float], float]) -> list[str]:
    """Lines at powers of ten; where few are in range, at 2 and 5 times them too."""
    powers = range(math.floor(bottom), math.ceil(top) + 1)
    step = max(1, math.ceil((top - bottom) / 7))
    steps = (1, 2, 5) if top - bottom < 2 else (1,)
    parts = []
    for value in (m * 10.0**p for p in powers if p % step == 0 for m in steps):
        if bottom <= math.log10(value) <= top:
            at = y(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_label(value)}</text>')
    return parts


def _label(value: float) -> str:
    return f"{value:g}" if 1e-2 <= value <= 1e3 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def _ticks(count: int, x: Callable[[float], float]) -> list[str]:
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 10**9) if count / s <= 7)
    marks = [1, *range(step, count + 1, step)] if step > 1 else list(range(1, count + 1))
    return [
        f'<text class="tick" x="{x(i):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{i}</text>' for i in marks
    ]


__all__ = ["Line", "legend", "line_chart"]
