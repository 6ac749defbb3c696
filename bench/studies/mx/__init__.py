"""Does a generative model train when every operand of its products is in an MX format, and does the rule for scales matter?"""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

import numpy as np

from ulpgrad import data as datasets, optim, random
from ulpgrad.bench import report
from ulpgrad.bench.lab import (
    INK,
    Check,
    Column,
    Estimate,
    Figures,
    NotRun,
    Plot,
    Results,
    Row,
    Run,
    Study,
    colour,
    curves,
)
from ulpgrad.bench.lab.plots import dash
from ulpgrad.bench.lab.results import estimate
from ulpgrad.bench.studies.mx import transformer
from ulpgrad.policy import Policy

FORMATS = ("mxfp8_e4m3", "mxfp8_e5m2", "mxint8", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4_e2m1")
RULES = ("floor", "rceil", "even")
BASE = "float32"
NOISY = "mxfp4_e2m1_rceil-stochastic"
LEARNING_RATE = 4e-3
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.01
CLOSE = 0.03  # bits for a letter


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
    formats = None
    if run.setting is not None:
        form, rounding = run.setting
        formats = policy(form, rounding, run.seed)
    for epoch in range(run.epochs):
        run.told(f"epoch {epoch + 1}" + (f", {bits[-1]:.3f} bits" if bits else ""))
        first = int(generator.integers(0, transformer.CONTEXT, 1)[0])
        given, wanted = (part[:pieces] for part in transformer.windows(training, first))
        total = []
        loader = datasets.DataLoader(
            datasets.ArrayDataset(given, wanted),
            run.batch_size,
            shuffle=True,
            drop_last=True,
            seed=1000 * run.seed + epoch,
        )
        for x, y in loader:
            with formats or contextlib.nullcontext():
                loss = transformer.loss(model, x, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total.append(loss.item())
        losses.append(float(np.mean(total)) / math.log(2))
        with formats or contextlib.nullcontext():
            bits.append(transformer.bits(model, held_out))
    return {
        "training_bits": losses,
        "held_out_bits": bits,
        "bits": bits[-1],
        "final_training_bits": losses[-1],
        "parameters": sum(p.size for p in model.parameters()),
        "seconds": time.perf_counter() - begun,
    }


def policy(form: str, rounding: str = "nearest_even", seed: int = 0) -> Policy:
    """Every operand of every product in a block format; `rounding` is that of gradients."""
    return Policy(weight=form, activation=form, gradient=form, rounding={"gradient": rounding}, seed=seed)


def name(form: str, rule: str) -> str:
    """A format with its rule, as `as_format` takes it."""
    return form if rule == "floor" else f"{form}_{rule}"


def beyond(results: Results, row: str) -> Estimate:
    """Held-out bits above float32's, each seed against its own: both start from the same weights and see the same letters."""
    base = {r["seed"]: r["bits"] for r in results.of(BASE)}
    return Estimate(tuple(r["bits"] - base[r["seed"]] for r in results.of(row) if r["seed"] in base))


def grid(axes: Any, results: Results) -> None:
    """Bits above float32's of every format and rule, with the interval over seeds."""
    if results.rows == [BASE]:
        raise NotRun(FORMATS[0])
    axes.axhline(0, color=INK, linewidth=1)
    for i, rule in enumerate(RULES):
        there = {at: beyond(results, name(f, rule)) for at, f in enumerate(FORMATS) if name(f, rule) in results.rows}
        if there:
            axes.errorbar([at + (i - 1) * 0.2 for at in there], [e.mean for e in there.values()],
                          [e.half or 0.0 for e in there.values()], fmt="osD"[i], color=colour(i + 1), markersize=5,
                          elinewidth=2, label=rule)  # fmt: skip
    if NOISY in results.rows:
        found = beyond(results, NOISY)
        axes.errorbar([len(FORMATS) - 0.6], [found.mean], [found.half or 0.0], fmt="^", color=colour(4), markersize=6,
                      elinewidth=2, label="rceil, stochastic gradients")  # fmt: skip
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_yticks(ticks := [0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.2, 0.5, 1], [f"{t:g}" for t in ticks])
    axes.set_xticks(range(len(FORMATS)), FORMATS)
    axes.set(ylabel="held-out bits above float32's")
    axes.grid(visible=False, axis="x")
    axes.legend(loc="upper left")


def formats_by_rules(results: Results) -> tuple[str, str]:
    """The same as a table."""
    rows = []
    for form in FORMATS:
        cells = []
        for rule in RULES:
            if name(form, rule) not in results.rows:
                cells.append("")
                continue
            cells.append(_text(beyond(results, name(form, rule)), "+.3f"))
        rows.append((form, *cells))
    note = (
        '<p class="note">Bits for a letter on held-out text above float32’s of the same seed: means over seeds, ± half the 95% '
        "confidence interval. Less is better.</p>"
    )
    return "What each format costs, by rule", report.html_table(("format", *RULES), rows, "Above float32", RULES) + note


def _text(found: Estimate, form: str) -> str:
    return f"{found.mean:{form}}" + (f" ± {found.half:.3f}" if found.half is not None else "")


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
    best = {form: min(RULES, key=lambda rule: beyond(results, name(form, rule)).mean) for form in FORMATS}
    rules = {
        form: ", ".join(f"{beyond(results, name(form, rule)).mean:+.3f} by {rule}" for rule in RULES)
        for form in ("mxfp8_e4m3", "mxfp4_e2m1")
    }
    return [
        f"float32 reaches {results.mean(BASE, 'bits'):.3f} bits for a letter. By the best rule of each format the others lie "
        "above it, each seed against its own, by "
        + ", ".join(f"{beyond(results, name(form, rule)).mean:+.3f} ({form}, {rule})" for form, rule in best.items())
        + ".",
        f"The rule for scales: MXFP8 e4m3 is {rules['mxfp8_e4m3']}; MXFP4 {rules['mxfp4_e2m1']}. A block of e4m3 whose largest "
        "magnitude is 1.9 times a power of two is clamped to 1.75 times by floor; rceil takes the next scale and clamps nothing. "
        "A. Mishra and others (“Recipes for pre-training LLMs with MXFP8”, 2025) found the same at full size, and round up.",
        "For e5m2 rceil and even give the same values: elements that are floats lose nothing but range when the scale is twice "
        "as large, and both rules leave nothing clamped that would not be rounded there anyway.",
        "MXFP4 by rceil fails for one tensor: the gradient of the output has one large entry in each row, the letter that came, "
        "and many small ones which balance it. To nearest they become zero, and what is left pushes one way. Rounded "
        f"stochastically they are right in the mean, and the same format and rule end {beyond(results, NOISY).mean:+.3f} above "
        f"float32 instead of {beyond(results, 'mxfp4_e2m1_rceil').mean:+.3f}.",
    ]


def _floor_costs_more(results: Results) -> bool:
    pairs = [
        zip(beyond(results, form).values, beyond(results, f"{form}_rceil").values, strict=True)
        for form in ("mxfp8_e4m3", "mxfp8_e5m2")
    ]
    return all(floor > up for pair in pairs for floor, up in pair)


def _within(form: str, most: float) -> Any:
    return lambda r: abs(beyond(r, form).mean) < most


def _column(title: str, figure: str) -> Column:
    return Column(title, lambda runs: _text(estimate(runs, figure), ".3f"))


STUDY = Study(
    title="A small transformer in MX formats",
    source="B. Rouhani and others, “Microscaling data formats for deep learning”, 2023, section 5, and the OCP MX "
    "specification v1.0",
    claim="Eight bits in blocks train a small generative model as well as float32 without another setting, six nearly, and "
    "four pay for it. The rule that chooses the scale matters as much as a bit or two: floor, the specification's, clamps the "
    "largest elements of many blocks. Four bits want their gradients rounded stochastically.",
    setup="A transformer of two layers, width 64, two heads of 32, context 64 (112,000 parameters) learns the first 88,000 "
    "letters of “Coriolanus” by AdamW and is measured on the last 9,800, in bits for a letter. Every operand of the dense "
    "layers' products, forward and backward, is rounded to the format along the axis that the product sums over, and so are "
    "queries, keys and values of attention and the gradient that comes back to it. Sums, norms, attention in between, and "
    "the weights that are stepped are float32.",
    first_column="format",
    rows={
        BASE: Row(BASE, None, "Every product in float32: the yardstick.", tags={"format": BASE}),
        **{
            name(form, rule): Row(f"{form}, {rule}", (name(form, rule), "nearest_even"), "", tags={"format": form})
            for form in FORMATS for rule in RULES
        },
        NOISY: Row("mxfp4_e2m1, rceil, stochastic gradients", ("mxfp4_e2m1_rceil", "stochastic"),
                   "Gradients rounded stochastically, the rest to nearest even.", tags={"format": "mxfp4_e2m1"}),
    },
    run=run,
    columns=[_column("held-out bits", "bits"), _column("training bits", "final_training_bits")],
    plots=[
        Plot("What each format costs, by rule", grid, inches=(8.4, 3.6), wide=True),
        Plot("Held-out bits while learning, floor rule", curves_of_rule),
        Plot("Training bits", curves("training_bits", "training bits for a letter", [BASE, *FORMATS], log=False)),
    ],
    see=[losses_against_float32],
    sections=[formats_by_rules],
    checks=[
        *(Check(f"{row} ends within {CLOSE} bits of float32, in the mean", _within(row, CLOSE))
          for row in ("mxfp8_e4m3_rceil", "mxfp8_e5m2_rceil", "mxint8")),
        Check("the floor rule, which clamps, costs MXFP8 more than rceil does, in every seed", _floor_costs_more),
        Check("MXFP6 learns: it ends within 0.2 bits of float32 by its best rule",
              lambda r: max(min(beyond(r, name(f, rule)).mean for rule in RULES) for f in ("mxfp6_e2m3", "mxfp6_e3m2")) < 0.2),
        Check("MXFP4 learns: it ends within 0.5 bits of float32 by its best rule, and above MXFP8 by rceil in every seed",
              lambda r: min(beyond(r, name("mxfp4_e2m1", rule)).mean for rule in RULES) < 0.5
              and min(min(beyond(r, name("mxfp4_e2m1", rule)).values) for rule in RULES)
              > max(beyond(r, "mxfp8_e4m3_rceil").values)),
        Check("gradients rounded stochastically bring MXFP4 nearer than any rule does rounded to nearest, in every seed",
              lambda r: max(beyond(r, NOISY).values)
              < min(min(beyond(r, name("mxfp4_e2m1", rule)).values) for rule in RULES)),
    ],
    figure="bits",
    quick=(BASE, "mxfp8_e4m3_rceil", "mxfp4_e2m1", NOISY),
    quick_epochs=1,
    epochs=4,
    batch_size=8,
    datasets=(),
    minutes=15,
)  # fmt: skip
