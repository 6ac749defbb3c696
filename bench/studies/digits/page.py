"""What the study shows: columns of the table, the curves, bytes, and what to see in them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from ulpgrad.bench import report
from ulpgrad.bench.chart import Line, legend, line_chart
from ulpgrad.bench.lab import Column, Results, number, percent, span
from ulpgrad.bench.studies.digits.training import PRECISIONS
from ulpgrad.bench.timing import readable

Result = dict[str, Any]

COLUMNS = (
    percent("test error", "test_error"),
    span("range", "test_error"),
    number("final loss", "final_loss"),
    Column("bytes a step", lambda runs: f"{runs[0]['bytes']['total'] / 1e6:.2f} MB"),
    Column("time a step", lambda runs: readable(statistics.median(r["step_seconds"] for r in runs))),
    Column("skipped steps", lambda runs: f"{sum(r['skipped_steps'] for r in runs)} of {sum(r['steps'] for r in runs)}"),
    Column("zero gradients", lambda runs: f"{statistics.fmean(r['zero_gradients'] for r in runs):.1%}"),
)
NOTE = (
    "Test error and final loss: after the last epoch. Bytes a step: parameters, activations kept for backward, gradients and "
    "optimizer state, each piece of memory counted once. Time a step: median, on one thread, without the first epoch. "
    "Skipped steps: refused by the loss scaler, over all seeds. Zero gradients: share of the parameters' gradient values that "
    "are exactly zero in the last epoch."
)


def summary(results: Results) -> list[dict[str, Any]]:
    """One row for each model and format: means over seeds, in the order trained."""
    rows = []
    for own in map(results.of, results.rows):
        errors = [r["test_error"] for r in own]
        rows.append({
            "model": own[0]["model"],
            "format": own[0]["precision"],
            "test_error": statistics.fmean(errors),
            "test_error_low": min(errors),
            "test_error_high": max(errors),
            "bytes": own[0]["bytes"],
            "step_seconds": statistics.median(r["step_seconds"] for r in own),
            "skipped_steps": sum(r["skipped_steps"] for r in own),
            "steps": sum(r["steps"] for r in own),
            "zero_gradients": statistics.fmean(r["zero_gradients"] for r in own),
        })  # fmt: skip
    return rows


def observations(results: Results) -> list[str]:
    """Sentences that these figures bear out."""
    found = []
    rows = {(r["model"], r["format"]): r for r in summary(results)}
    models = list(dict.fromkeys(model for model, _ in rows))
    for model in models:
        own = [r for (m, _), r in rows.items() if m == model]
        low, high = min(r["test_error"] for r in own), max(r["test_error"] for r in own)
        image = 1 / 500
        verdict = (
            "no more than the seeds differ, or two of 500 images: no format learns measurably better or worse"
            if high - low <= max(2 * image, max(r["test_error_high"] - r["test_error_low"] for r in own))
            else "more than the seeds differ among themselves: here the format matters"
        )
        if len(own) > 1:
            found.append(
                f"{model.upper()}: the formats' test errors lie between {low:.2%} and {high:.2%}, {high - low:.2%} apart; "
                f"that is {verdict}."
            )
    for model in models:
        plain, scaled = rows.get((model, "float16")), rows.get((model, "float16-scaled"))
        wide = rows.get((model, "float32"))
        if plain and scaled and wide and plain["zero_gradients"] > 1.05 * scaled["zero_gradients"]:
            found.append(
                f"{model.upper()}: in float16 without loss scaling {plain['zero_gradients']:.1%} of the weights' gradients "
                f"are exactly zero in the last epoch, against {wide['zero_gradients']:.1%} in float32: the small ones fell "
                f"below float16's range. A scaled loss brings that to {scaled['zero_gradients']:.1%}, for "
                f"{scaled['skipped_steps']} skipped steps of {scaled['steps']}."
            )
    for model in models:
        mixed, wide = rows.get((model, "bfloat16")), rows.get((model, "float32"))
        if mixed and wide:
            part = wide["bytes"]["activations"] / wide["bytes"]["total"]
            saved = 1 - mixed["bytes"]["total"] / wide["bytes"]["total"]
            outcome = f"{saved:.0%} of all bytes are saved" if saved > 0 else "here the copies outweigh what they save"
            found.append(
                f"{model.upper()}: activations are {part:.0%} of float32's bytes. They alone shrink when products are "
                "computed in 16 bits, and 16-bit copies of the weights join them; weights, gradients and optimizer state "
                f"stay float32: {outcome}."
            )
    slower = {m: rows[m, "bfloat16"]["step_seconds"] / rows[m, "float32"]["step_seconds"] for m in models
              if (m, "bfloat16") in rows and (m, "float32") in rows}  # fmt: skip
    if slower and min(slower.values()) > 1:
        times = " and ".join(f"{ratio:.2f} times float32's ({m.upper()})" for m, ratio in slower.items())
        found.append(
            f"A step in bfloat16 takes {times}: these kernels widen 16-bit operands to float32 and round the results, so "
            "on this processor 16 bits save memory, not time."
        )
    return found


def charts(study: Results) -> tuple[str, str]:
    """Loss curves, and their distances from those in float64."""
    results = study.runs
    models = list(dict.fromkeys(r["model"] for r in results))
    formats = list(dict.fromkeys(r["precision"] for r in results))
    styles = {name: list(PRECISIONS).index(name) for name in formats}
    parts = [legend([(PRECISIONS[f].label, styles[f]) for f in formats])]
    figures = []
    for model in models:
        curves = {f: [r["losses"] for r in results if (r["model"], r["precision"]) == (model, f)] for f in formats}
        lines = [_line(f, curves[f], styles[f]) for f in formats]
        figures.append(_figure(f"{model.upper()}: training loss", line_chart(lines, "epoch", "training loss")))
        if "float64" in formats and len(formats) > 1:
            distances = [_line(f, [[abs(a - b) for a, b in zip(one, exact, strict=True)]
                                   for one, exact in zip(curves[f], curves["float64"], strict=True)], styles[f])
                         for f in formats if f != "float64"]  # fmt: skip
            chart = line_chart(distances, "epoch", "distance from the loss in float64")
            figures.append(_figure(f"{model.upper()}: distance from the loss in float64", chart))
    parts.append(f'<div class="charts">{"".join(figures)}</div>')
    parts.append(
        '<p class="note">Means over seeds. The distance from float64 shows how rounding makes two trainings part: it begins '
        "with the rounding error of the format, and each step multiplies it.</p>"
    )
    return "Loss curves", "".join(parts)


def _line(name: str, curves: Sequence[Sequence[float]], style: int) -> Line:
    return Line(PRECISIONS[name].label, [statistics.fmean(c) for c in zip(*curves, strict=True)], style)


def _figure(caption: str, svg: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption>{svg}</figure>"


def ledger(results: Results) -> tuple[str, str]:
    """Bytes of a step, by kind."""
    columns = ("format", "parameters", "activations", "gradients", "optimizer state", "together")
    parts = []
    for model in dict.fromkeys(r["model"] for r in results.runs):
        rows = [
            (PRECISIONS[r["format"]].label, *(f"{n / 1e3:,.0f} kB" for n in r["bytes"].values()))
            for r in summary(results)
            if r["model"] == model
        ]
        parts.append(report.html_table(columns, rows, model.upper(), columns[1:]))
    return "Bytes of a step", "".join(parts)


__all__ = ["COLUMNS", "NOTE", "charts", "ledger", "observations"]
