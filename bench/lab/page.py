"""The page of a study: what was claimed, what was found, pictures, and what the rows mean."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from typing import Any

from ulpgrad.bench import machine, report
from ulpgrad.bench.lab.results import Figures, NotRun, Results
from ulpgrad.bench.lab.study import Options, Study

VERDICTS = {True: ("yes", "holds"), False: ("no", "does not hold"), None: ("open", "not run")}


def page(name: str, study: Study, results: Results, command: str) -> str:
    """The whole page."""
    shown = "".join(report.html_table(t.columns, t.rows, t.title, t.right) for t in study.tables(results))
    note = f'<p class="note">{escape(_note(study, results))}</p>'
    sections = [("What to see", _seen(study, results)), ("Results", shown + note)]
    pictures = [plot.html(results, f"{name}-{i}") for i, plot in enumerate(study.plots)]
    if any(pictures):
        sections.append(("Pictures", f'<div class="charts">{"".join(pictures)}</div>'))
    for section in study.sections:
        with contextlib.suppress(NotRun):
            sections.append(section(results))
    meanings = {study.rows[row].label: study.rows[row].meaning for row in results.rows if study.rows[row].meaning}
    if meanings:
        sections.append(("What each row means", report.definitions(list(meanings.items()))))
    return report.page(
        study.title, " ".join([f"After {study.source}."] * bool(study.source) + [study.setup]), sections, command
    )


def _seen(study: Study, results: Results) -> str:
    parts = [f"<p>{escape(text)}</p>" for text in study.paragraphs(results)]
    checks = [
        f'<li class="{VERDICTS[holds][0]}"><b>{VERDICTS[holds][1]}</b> {escape(text)}</li>'
        for text, holds in (study.verdicts(results) if results.whole else ())
    ]
    if checks:
        parts.append(f'<ul class="checks">{"".join(checks)}</ul>')
    return "".join(parts)


def _note(study: Study, results: Results) -> str:
    seeds = results.seeds
    spread = (
        f"Means over {seeds} seeds; ± half the 95% confidence interval (Student's t)."
        if seeds > 1
        else "One seed: no interval is known."
    )
    beside = f" Expected figures: {study.expected_from}." if study.expected else ""
    return f"{spread}{beside} {study.note}".strip()


def as_data(name: str, study: Study, options: Options, results: Results) -> dict[str, Any]:
    """Everything that is printed and more, for a JSON file."""
    return {
        "study": name,
        "title": study.title,
        "source": study.source,
        "claim": study.claim,
        "options": asdict(options),
        "meanings": {row: study.rows[row].meaning for row in results.rows},
        "summary": [
            {"row": row, "label": results.label(row), **study.rows[row].tags, "seeds": len(results.of(row)),
             **{key: results.estimate(row, key).as_data() for key in _scalars(results.of(row))}}
            for row in results.rows
        ],
        "expected": {row: dict(figures) for row, figures in study.expected.items()},
        "checks": [{"text": text, "holds": holds} for text, holds in study.verdicts(results)],
        "runs": results.runs,
        "machine": machine.machine(),
        "versions": machine.versions(),
        "commit": machine.commit(),
    }  # fmt: skip


def _scalars(runs: Sequence[Figures]) -> list[str]:
    """Figures that are a number in every run."""
    return [
        key
        for key in runs[0]
        if key not in ("row", "label", "seed") and all(isinstance(r.get(key), (int, float, type(None))) for r in runs)
    ]


__all__ = ["VERDICTS", "as_data", "page"]
