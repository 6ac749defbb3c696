"""What the study shows: the table, for the terminal and the page alike, the curves, and what to see in them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from ulpgrad.bench import report
from ulpgrad.bench.chart import Line, legend, line_chart
from ulpgrad.bench.studies.digits.training import MODELS, PRECISIONS
from ulpgrad.bench.timing import readable

COLUMNS = (
    "format",
    "test error",
    "range",
    "final loss",
    "bytes a step",
    "time a step",
    "skipped steps",
    "zero gradients",
)
RIGHT = COLUMNS[1:]
Result = dict[str, Any]


def summary(results: Sequence[Result]) -> list[dict[str, Any]]:
    """One row for each model and format: means over seeds, in the order trained."""
    rows = []
    for model, precision in dict.fromkeys((r["model"], r["precision"]) for r in results):
        own = [r for r in results if (r["model"], r["precision"]) == (model, precision)]
        errors = [r["test_error"] for r in own]
        rows.append({
            "model": model,
            "format": precision,
            "seeds": len(own),
            "test_error": statistics.fmean(errors),
            "test_error_low": min(errors),
            "test_error_high": max(errors),
            "final_loss": statistics.fmean(r["final_loss"] for r in own),
            "bytes": own[0]["bytes"],
            "step_seconds": statistics.median(r["step_seconds"] for r in own),
            "skipped_steps": sum(r["skipped_steps"] for r in own),
            "steps": sum(r["steps"] for r in own),
            "zero_gradients": statistics.fmean(r["zero_gradients"] for r in own),
        })  # fmt: skip
    return rows


def table(results: Sequence[Result], model: str) -> list[tuple[str, ...]]:
    """The rows of one model, as text under COLUMNS."""
    return [
        (
            PRECISIONS[row["format"]].label,
            f"{row['test_error']:.2%}",
            f"{row['test_error_low']:.1%} - {row['test_error_high']:.1%}",
            f"{row['final_loss']:.4g}",
            f"{row['bytes']['total'] / 1e6:.2f} MB",
            readable(row["step_seconds"]),
            f"{row['skipped_steps']} of {row['steps']}",
            f"{row['zero_gradients']:.1%}",
        )
        for row in summary(results)
        if row["model"] == model
    ]


def tables(results: Sequence[Result]) -> list[tuple[str, Sequence[str], list[tuple[str, ...]], Sequence[str]]]:
    """(title, columns, rows, columns of figures) for each model."""
    return [(MODELS[m].text, COLUMNS, table(results, m), RIGHT) for m in dict.fromkeys(r["model"] for r in results)]


def page(results: Sequence[Result], command: str) -> str:
    """The report."""
    models = list(dict.fromkeys(r["model"] for r in results))
    formats = list(dict.fromkeys(r["precision"] for r in results))
    seeds = len({r["seed"] for r in results})
    shown = "".join(report.html_table(columns, rows, title, right) for title, columns, rows, right in tables(results))
    lead = (
        f"{' and '.join(m.upper() for m in models)} trained on 1,297 images of handwritten digits and tested on 500 others, "
        f"in {len(formats)} number formats, with {seeds} seed{'s' * (seeds > 1)}. Rows of one seed start from the same "
        "weights and see the same images in the same order: what differs comes from the formats alone."
    )
    sections = [
        ("Results", shown + f'<p class="note">{_columns_explained()}</p>'),
        ("What to see", "".join(f"<p>{text}</p>" for text in observations(results))),
        ("Loss curves", _charts(results, models, formats)),
        ("Bytes of a step", _bytes(results)),
        ("What each row means", report.definitions([(PRECISIONS[f].label, PRECISIONS[f].meaning) for f in formats])),
    ]
    return report.page("Handwritten digits in several number formats", lead, sections, command)


def observations(results: Sequence[Result]) -> list[str]:
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


def _columns_explained() -> str:
    return (
        "Test error and final loss: mean over seeds, after the last epoch. Bytes a step: parameters, activations kept for "
        "backward, gradients and optimizer state, each piece of memory counted once. Time a step: median, on one thread, "
        "without the first epoch. Skipped steps: refused by the loss scaler, over all seeds. Zero gradients: share of the "
        "parameters' gradient values that are exactly zero in the last epoch."
    )


def _charts(results: Sequence[Result], models: Sequence[str], formats: Sequence[str]) -> str:
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
    return "".join(parts)


def _line(name: str, curves: Sequence[Sequence[float]], style: int) -> Line:
    return Line(PRECISIONS[name].label, [statistics.fmean(c) for c in zip(*curves, strict=True)], style)


def _figure(caption: str, svg: str) -> str:
    return f"<figure><figcaption>{caption}</figcaption>{svg}</figure>"


def _bytes(results: Sequence[Result]) -> str:
    columns = ("format", "parameters", "activations", "gradients", "optimizer state", "together")
    parts = []
    for model in dict.fromkeys(r["model"] for r in results):
        rows = [
            (PRECISIONS[r["format"]].label, *(f"{n / 1e3:,.0f} kB" for n in r["bytes"].values()))
            for r in summary(results)
            if r["model"] == model
        ]
        parts.append(report.html_table(columns, rows, model.upper(), columns[1:]))
    return "".join(parts)


__all__ = ["observations", "page", "summary", "tables"]
