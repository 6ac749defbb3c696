"""Does a generative model train when every operand of its products is in an MX format, and does the rule for scales matter?"""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

import numpy as np

from ulpgrad import data as datasets, optim, random
from ulpgrad.bench.lab import INK, Check, Figures, Plot, Results, Row, Run, Study, colour, curves, number
from ulpgrad.bench.lab.plots import dash
from ulpgrad.bench.studies.mx import transformer
from ulpgrad.policy import Policy

FORMATS = ("mxfp8_e4m3", "mxfp8_e5m2", "mxint8", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4_e2m1")
RULES = ("floor", "rceil", "even")
BASE = "float32"
LEARNING_RATE = 4e-3
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.01
CLOSE = 0.02  # bits for a letter


def run(run: Run) -> Figures:
    """Train one writer; the held-out bits are measured under the row's formats too."""
    random.manual_seed(run.seed)
    training, held_out, letters = transformer.codes()
    model = transformer.Writer(len(letters))
    optimizer = optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY)
    pieces = (len(training) - transformer.CONTEXT) // transformer.CONTEXT
    schedule = optim.CosineAnnealingLR(optimizer, run.epochs * (pieces // run.batch_size))
    generator = random.Generator(run.seed)
    losses: list[float] = []
    bits: list[float] = []
    begun = time.perf_counter()
    with contextlib.nullcontext() if run.setting is None else policy(run.setting):
        for epoch in range(run.epochs):
            run.told(f"epoch {epoch + 1}" + (f", {bits[-1]:.3f} bits" if bits else ""))
            first = int(generator.integers(0, transformer.CONTEXT, 1)[0])
            given, wanted = (part[:pieces] for part in transformer.windows(training, first))
            total = []
            loader = datasets.DataLoader(datasets.ArrayDataset(given, wanted), run.batch_size, shuffle=True, drop_last=True,
                                         seed=1000 * run.seed + epoch)  # fmt: skip
            for x, y in loader:
                optimizer.zero_grad()
                loss = transformer.loss(model, x, y)
                loss.backward()
                optimizer.step()
                schedule.step()
                total.append(loss.item())
            losses.append(float(np.mean(total)) / math.log(2))
            bits.append(transformer.bits(model, held_out))
    return {
        "training_bits": losses,
        "held_out_bits": bits,
        "bits": bits[-1],
        "final_training_bits": losses[-1],
        "parameters": sum(p.size for p in model.parameters()),
        "seconds": time.perf_counter() - begun,
    }


def policy(form: str) -> Policy:
    """Every operand of every product in a block format."""
    return Policy(weight=form, activation=form, gradient=form)


def name(form: str, rule: str) -> str:
    """A format with its rule, as `as_format` takes it."""
    return form if rule == "floor" else f"{form}_{rule}"


def grid(axes: Any, results: Results) -> None:
    """Held-out bits of every format and rule, with the interval over seeds, over float32's."""
    base = results.estimate(BASE, "bits")
    half = base.half or 0.0
    axes.axhspan(base.mean - half, base.mean + half, color=INK, alpha=0.12, linewidth=0)
    axes.axhline(base.mean, color=INK, linewidth=1, label=BASE)
    for i, rule in enumerate(RULES):
        for at, form in enumerate(FORMATS):
            if name(form, rule) not in results.rows:
                continue
            found = results.estimate(name(form, rule), "bits")
            x = at + (i - 1) * 0.2
            axes.errorbar([x], [found.mean], [[found.half or 0.0]] * 2, fmt="osD"[i], color=colour(i + 1), markersize=5,
                          elinewidth=2, label=rule if form == FORMATS[0] else None)  # fmt: skip
    axes.set_xticks(range(len(FORMATS)), FORMATS)
    axes.set(ylabel="held-out bits for a letter")
    axes.grid(visible=False, axis="x")
    axes.legend(ncols=4)


def curves_of_rule(axes: Any, results: Results) -> None:
    """Held-out bits after each epoch, of float32 and every format by the floor rule."""
    for i, row in enumerate([BASE, *FORMATS]):
        if row in results.rows:
            values = results.curve(row, "held_out_bits")
            style = (
                {"color": INK, "linewidth": 4, "alpha": 0.3} if i == 0 else {"color": colour(i), "linestyle": dash(i)}
            )
            axes.plot(range(1, len(values) + 1), values, label=row, **style)
    axes.set(xlabel="epoch", ylabel="held-out bits for a letter")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(ncols=2)


def losses_against_float32(results: Results) -> list[str]:
    """What each width costs, and what the rule changes."""
    base = results.mean(BASE, "bits")
    costs = {form: results.mean(form, "bits") - base for form in FORMATS}
    best = {form: min(RULES, key=lambda rule: results.mean(name(form, rule), "bits")) for form in FORMATS}
    fours = {rule: results.mean(name("mxfp4_e2m1", rule), "bits") for rule in RULES}
    return [
        "By the floor rule of the specification: "
        + ", ".join(f"{form} {cost:+.3f}" for form, cost in costs.items())
        + f" bits for a letter against float32's {base:.3f}. Eight and six bits cost little; four bits cost "
        f"{costs['mxfp4_e2m1'] / max(abs(costs['mxfp8_e4m3']), 1e-3):.0f} times what eight do.",
        "The rule for scales matters where digits are few: MXFP4 reaches "
        + ", ".join(f"{bits:.3f} by {rule}" for rule, bits in fours.items())
        + ". “floor” clamps the largest elements of a block, “rceil” never does and gives up half a digit for it, “even” lies "
        f"between. Best for each format: {', '.join(f'{form} {rule}' for form, rule in best.items())}.",
    ]


def _within(form: str, most: float) -> Any:
    return lambda r: abs(r.mean(form, "bits") - r.mean(BASE, "bits")) < most


STUDY = Study(
    title="A small transformer in MX formats",
    source="B. Rouhani and others, “Microscaling data formats for deep learning”, 2023, section 5, and the OCP MX "
    "specification v1.0",
    claim="MXFP8 and MXFP6 train a small generative model as well as float32 without another setting; MXFP4 trains too, and "
    "pays for it.",
    setup="A transformer of two layers, width 64, two heads of 32, context 64 (112,000 parameters) learns the first 88,000 "
    "letters of “Coriolanus” by AdamW and is measured on the last 9,800, in bits for a letter. Every operand of every product, "
    "dense layers and attention, forward and backward, is rounded to the format along the axis that the product sums over; "
    "sums, norms, softmax and weights that are stepped are float32.",
    first_column="format",
    rows={
        BASE: Row(BASE, None, "Every product in float32: the yardstick.", tags={"format": BASE}),
        **{
            name(form, rule): Row(f"{form}, {rule}", name(form, rule), "", tags={"format": form})
            for form in FORMATS for rule in RULES
        },
    },
    run=run,
    columns=[number("held-out bits", "bits", 4), number("training bits", "final_training_bits", 4)],
    plots=[
        Plot("Held-out bits by format and rule", grid, inches=(8.4, 3.6), wide=True),
        Plot("Held-out bits while learning, floor rule", curves_of_rule),
        Plot("Training bits", curves("training_bits", "training bits for a letter", [BASE, *FORMATS], log=False)),
    ],
    see=[losses_against_float32],
    checks=[
        *(Check(f"{form} ends within {CLOSE} bits of float32", _within(form, CLOSE)) for form in FORMATS[:3]),
        Check("MXFP4 learns: it ends below 3 bits", lambda r: r.mean("mxfp4_e2m1", "bits") < 3),
        Check("MXFP4 costs more than MXFP8", lambda r: r.mean("mxfp4_e2m1", "bits") > r.mean("mxfp8_e4m3", "bits")),
        Check("without clamping (rceil) MXFP4 is better than by floor",
              lambda r: r.mean("mxfp4_e2m1_rceil", "bits") < r.mean("mxfp4_e2m1", "bits")),
    ],
    figure="bits",
    quick=(BASE, "mxfp8_e4m3", "mxfp4_e2m1"),
    quick_epochs=1,
    epochs=4,
    batch_size=8,
    datasets=(),
    minutes=30,
)  # fmt: skip
