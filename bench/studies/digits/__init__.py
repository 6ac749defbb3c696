"""How well do networks learn handwritten digits in different number formats, and what does a step cost?"""

from __future__ import annotations

from ulpgrad.bench.lab import Figures, Row, Run, Study
from ulpgrad.bench.studies.digits.page import COLUMNS, NOTE, charts, ledger, observations
from ulpgrad.bench.studies.digits.training import MODELS, PRECISIONS, train


def run(run: Run) -> Figures:
    """Train one model in one format."""
    model, precision = run.setting
    return train(model, precision, run.seed, run.epochs, run.batch_size, lambda epoch: run.told(f"epoch {epoch + 1}"))


STUDY = Study(
    title="Handwritten digits in several number formats",
    source="",
    claim="",
    setup="An MLP and a CNN learn 1,297 images of handwritten digits and are tested on 500 others. Rows of one seed start from "
    "the same weights and see the same images in the same order: what differs comes from the formats alone.",
    first_column="format",
    rows={
        f"{m}-{p}": Row(precision.label, (m, p), precision.meaning, model.text, model.epochs,
                        {"model": m, "format": p})
        for m, model in MODELS.items() for p, precision in PRECISIONS.items()
    },
    run=run,
    columns=COLUMNS,
    note=NOTE,
    see=[observations],
    short_see=[observations],
    sections=[charts, ledger],
    seeds=2,
    batch_size=64,
    datasets=("digits",),
    minutes=5,
)  # fmt: skip
