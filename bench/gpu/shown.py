"""The layers of a network on a GPU as a table and as a picture, from what `make gpu-check` recorded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ulpgrad.bench.lab.plots import INK, colour, dash
from ulpgrad.bench.peers import page
from ulpgrad.bench.peers.work import Outcome
from ulpgrad.bench.pictures import Picture

PASSES = ("forward", "input gradient", "weight gradient")
OVER = ("cuDNN channels last", "cuDNN NCHW")
LEGEND = (
    "TFLOP/s; share of the matrix units' peak, measured in the same run with cuBLAS (float32: a third of TF32's); ratio over "
    "cuDNN with channels last, and over its NCHW default."
)
INCHES = (8.4, 7.2)
Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def name(entry: dict[str, Any]) -> str:
    """Of the picture's file."""
    return "gpu-" + re.sub(r"[^a-z0-9]+", "-", f"{entry['network']} {entry['format']}".lower())


def _outcomes(line: dict[str, Any]) -> dict[str, Outcome]:
    return {key: Outcome.from_data(data) for key, data in line.items()}


def _over(o: Outcome, peer: str) -> float | None:
    return o.rate / o.peers[peer] if peer in o.peers else None


def table(entry: dict[str, Any]) -> Table:
    """A line for each distinct layer."""
    lines = []
    for layer in entry["layers"]:
        found = _outcomes(layer["passes"])
        lines.append((layer["layer"], str(layer["times"]), *(_cell(found.get(key)) for key in PASSES)))
    return ("layer", "times", *PASSES), lines


def _cell(o: Outcome | None) -> str:
    if o is None:
        return ""
    share = "" if o.share is None else f"{o.share:.0%}"
    return ", ".join(
        part for part in (page.rate(o.rate), share, *(page.times(_over(o, peer)) for peer in OVER)) if part
    )


def summary(entries: Sequence[dict[str, Any]]) -> Table:
    """A line for each network and format, and each direction: all its convolutions."""
    columns = ("all convolutions of", "images/s", "of the limit", *(f"over {peer}" for peer in OVER))
    lines = []
    for entry in entries:
        for over, o in _outcomes(entry["whole"]).items():
            share = "" if o.share is None else f"{o.share:.0%}"
            ratios = (page.times(_over(o, peer)) for peer in OVER)
            lines.append((f"{entry['network']}, {entry['format']}, {over}", page.rate(o.rate), share, *ratios))
    return columns, lines


def picture(entry: dict[str, Any]) -> Picture:
    """Each pass over the layers, ours and cuDNN's: as shares of the measured peak, or as TFLOP/s where nobody measured it."""
    layers = entry["layers"]
    outcomes = [_outcomes(layer["passes"]) for layer in layers]
    is_share = all(o.limit for line in outcomes for o in line.values())

    def draw(axes: Any) -> None:
        figure = axes.figure
        axes.remove()
        panels = figure.subplots(len(PASSES), 1, sharex=True, sharey=True)
        for panel, key in zip(panels, PASSES, strict=True):
            drawn = [(at, line[key]) for at, line in enumerate(outcomes) if key in line]
            for i, who in enumerate(("ulpgrad", *OVER)):
                pairs = [(at, o.rate if i == 0 else o.peers.get(who), o.limit) for at, o in drawn]
                points = [(at, 100 * rate / (limit or 1.0) if is_share else rate) for at, rate, limit in pairs if rate]
                if points:
                    style = {"color": INK, "linewidth": 2.4, "marker": "o", "markersize": 5} if i == 0 else {
                        "color": colour(i), "linestyle": dash(i), "linewidth": 1.2, "marker": "sD"[i - 1], "markersize": 4,
                    }  # fmt: skip
                    panel.plot(*zip(*points, strict=True), label=who if panel is panels[0] else None, **style)
            panel.set_title(key, loc="left", fontsize=9.5)
            panel.set_ylim(bottom=0)
            panel.set_ylabel("% of peak" if is_share else "TFLOP/s")
        times = [f"  ({layer['times']}x)" if layer["times"] > 1 else "" for layer in layers]
        names = [f"{layer['layer']}{often}" for layer, often in zip(layers, times, strict=True)]
        panels[-1].set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor", fontsize=7.5)
        figure.legend(loc="outside upper right", ncols=3)

    return Picture(name(entry), f"{entry['network']} in {entry['format']} on a GPU, layer by layer", draw, INCHES)


__all__ = ["LEGEND", "name", "picture", "summary", "table"]
