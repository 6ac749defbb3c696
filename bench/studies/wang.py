"""Training in 8 bits: sums that are taken in chunks, and updates that are rounded stochastically."""

from __future__ import annotations

from typing import Any

import numpy as np

import ulpgrad as ug
from ulpgrad.bench.lab import (
    INK,
    Check,
    Figures,
    Plot,
    Recipe,
    Results,
    Row,
    Run,
    Study,
    bars,
    colour,
    curves,
    diverged,
    number,
    percent,
    train,
)
from ulpgrad.bench.lab.plots import dash, plain_ticks
from ulpgrad.policy import Policy

TERMS = 65536
SPREAD = 3**0.5  # uniform with mean 1 and standard deviation 1, as in the paper's figure 3
SUMS = "A sum of 65,536 numbers that are 1 in the mean"
UPDATES = "Products in float32, weights kept in 16 bits"
TRAINED = "Products of 8 bits (1-5-2), sums and weights in 16"
SCALED = "The same with sums as short for 256 terms as 1-6-9 is for 16,384"
CHUNK = 64
SHORT_CHUNK = 16
LENGTHS = tuple(2 ** (i // 2) * (3 if i % 2 else 2) // 2 for i in range(8, 33))
LOSS_SCALE = 1024.0  # the paper's is 1000
LEARNING_RATE = 0.01
EIGHT: dict[str, Any] = {"weight": "float8_e5m2", "activation": "float8_e5m2", "gradient": "float8_e5m2"}
STOCHASTIC = {"update": "stochastic"}
EXPECTED = {
    "bfloat16-nearest": {"test_error": 0.0856}, "bfloat16-stochastic": {"test_error": 0.0453}, "float32": {"test_error": 0.0453},
}  # fmt: skip
UPDATED = ("float32", "bfloat16-nearest", "bfloat16-stochastic")
RATED = (*UPDATED, "8-float32", "8-chunks", "8-running", "8-nearest", "8-short-chunks", "8-short-running")


def run(run: Run) -> Figures:
    """A sum, or a training."""
    if isinstance(run.setting, ug.Accumulate):
        return summed(run.setting, run.seed)
    scale = LOSS_SCALE if "gradient" in run.setting else 1.0
    policy = Policy(**run.setting, seed=run.seed)
    return train(run, Recipe(LEARNING_RATE, standardize=True, loss_scale=scale), policy=policy)


def summed(accumulate: ug.Accumulate, seed: int) -> Figures:
    """The sum, how far it is from the exact one, and the sums of growing numbers of terms."""
    x = np.random.default_rng(seed).uniform(1 - SPREAD, 1 + SPREAD, TERMS).astype(np.float32)
    way = [ug.sum(ug.asarray(x[:n]), accumulate=accumulate).item() for n in LENGTHS]
    exact = float(x.sum(dtype=np.float64))
    return {"sum": way[-1], "off": way[-1] / exact - 1, "way": way}


def way(axes: Any, results: Results) -> None:
    """Sums of growing numbers of terms, from the first seed."""
    for i, row in enumerate(row for row in results.rows if STUDY.rows[row].group == SUMS):
        style = (
            {"color": INK, "linewidth": 5, "alpha": 0.3} if i == 0 else {"color": colour(i), "linestyle": dash(i - 1)}
        )
        axes.plot(LENGTHS, results.of(row)[0]["way"], label=results.label(row), **style)
    axes.set(xlabel="terms", ylabel="sum", xscale="log", yscale="log")
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.legend()


def stalls(results: Results) -> str:
    """What a 16-bit accumulator does to a long sum."""
    return (
        f"A running sum in 1-6-9 stalls at {results.mean('sum-e6m9', 'sum'):,.0f}: from there on a term, 2.7 at most, is less "
        f"than half the spacing of the numbers, 8. Summed in chunks of {CHUNK}, and the chunks' sums after that, it is "
        f"{results.mean('sum-e6m9-chunks', 'off'):+.2%} off. The study accumulators follows this over lengths, chunks, formats."
    )


def kept(results: Results) -> str:
    """Updates that are lost."""
    exact, nearest, stochastic = (results.mean(r) for r in ("float32", "bfloat16-nearest", "bfloat16-stochastic"))
    return (
        f"At a learning rate of {LEARNING_RATE}, bfloat16 weights rounded to nearest lose every update under half their spacing: "
        f"the error is {nearest:.2%}; rounded stochastically it is {stochastic:.2%}, in float32 "
        f"{exact:.2%}. No copy of the weights in more bits is kept anywhere."
    )


def eight(results: Results) -> str:
    """The whole recipe, and what this network cannot show."""
    whole, wide = results.mean("8-chunks"), results.mean("8-float32")
    running, nearest = results.mean("8-running"), results.mean("8-nearest")
    short, chunks = results.mean("8-short-running"), results.mean("8-short-chunks")
    return (
        f"Products of 1-5-2 numbers with everything else in float32 end at {wide:.2%} wrong; with 1-6-9 sums in chunks of "
        f"{CHUNK} and 1-6-9 weights rounded stochastically, the paper's recipe, at {whole:.2%}. Without chunks it is "
        f"{running:.2%}, with updates to nearest {nearest:.2%}: the longest sum in this network has 256 terms, far from the "
        f"4,096 at which 1-6-9 stalls. With sums in 1-6-3, which stall at 64, running sums end at {short:.2%} and chunks of "
        f"{SHORT_CHUNK} at {chunks:.2%}."
    )


def eight_row(label: str, meaning: str, group: str = TRAINED, **settings: Any) -> Row:
    """A row whose products take 1-5-2 numbers."""
    return Row(
        label, {**EIGHT, **settings}, f"Weights, activations and gradients enter products in 1-5-2. {meaning}", group
    )


STUDY = Study(
    title="Training in 8 bits: chunks of sums, and updates with chance",
    source="N. Wang, J. Choi, D. Brand, C.-Y. Chen and K. Gopalakrishnan, “Training deep neural networks with 8-bit floating "
    "point numbers”, NeurIPS 2018",
    claim="Products of 8-bit numbers train a network if long sums are taken in chunks, so that a 16-bit accumulator does not "
    "swallow small terms, and if weights kept in 16 bits are rounded stochastically, so that small updates are not lost.",
    first_column="numbers",
    rows={
        "sum-float32": Row("float32", ug.Accumulate("float32"), "", SUMS),
        "sum-e6m9": Row("1-6-9, one running sum", ug.Accumulate("e6m9"), "", SUMS),
        "sum-e6m9-chunks": Row(f"1-6-9, chunks of {CHUNK}", ug.Accumulate("e6m9", CHUNK), "", SUMS),
        "float32": Row("float32", {}, "Everything in float32: the yardstick.", UPDATES),
        "bfloat16-nearest": Row("bfloat16, nearest", {"update": "bfloat16"}, "Weights are rounded to bfloat16 after each step.",
                                UPDATES),
        "bfloat16-stochastic": Row("bfloat16, stochastic", {"update": "bfloat16", "rounding": STOCHASTIC},
                                   "The same, rounded up or down by chance, right in the mean.", UPDATES),
        "8-float32": eight_row("sums, weights float32", "Sums and weights are float32: what 8 bits alone cost."),
        "8-chunks": eight_row(f"sums 1-6-9 in chunks of {CHUNK}, weights 1-6-9 stochastic", "The paper's recipe.",
                              accumulate=ug.Accumulate("e6m9", CHUNK), update="e6m9", rounding=STOCHASTIC),
        "8-running": eight_row("sums 1-6-9 running, weights 1-6-9 stochastic", "The recipe without chunks.",
                               accumulate=ug.Accumulate("e6m9"), update="e6m9", rounding=STOCHASTIC),
        "8-nearest": eight_row(f"sums 1-6-9 in chunks of {CHUNK}, weights 1-6-9 nearest", "The recipe without chance.",
                               accumulate=ug.Accumulate("e6m9", CHUNK), update="e6m9"),
        "8-short-chunks": eight_row(f"sums 1-6-3 in chunks of {SHORT_CHUNK}, weights 1-6-9 stochastic", "Sums with 3 bits after "
                                    "the point, in chunks.", SCALED, accumulate=ug.Accumulate("e6m3", SHORT_CHUNK),
                                    update="e6m9", rounding=STOCHASTIC),
        "8-short-running": eight_row("sums 1-6-3 running, weights 1-6-9 stochastic", "The same without chunks.", SCALED,
                                     accumulate=ug.Accumulate("e6m3"), update="e6m9", rounding=STOCHASTIC),
    },
    run=run,
    columns=[number("sum", "sum", 6), percent("off by", "off"), percent("test error", "test_error"),
             percent("best error", "best_error"), diverged()],
    plots=[
        Plot("Where sums stall", way, note="Sums of the first terms; first seed."),
        Plot("Test error over time", curves("test_errors", "test error", UPDATED)),
        Plot("Test error", bars("test error", expected=EXPECTED, rows=RATED), wide=True, inches=(11, 3.6),
             note="Bars: 95% intervals; dots: seeds; diamonds: the dry run."),
    ],
    see=[stalls, kept, eight],
    checks=[
        Check("a running sum in 1-6-9 stalls at 4,096; chunks of 64 bring it to within 1%",
              lambda r: set(r.estimate("sum-e6m9", "sum").values) == {4096.0} and abs(r.mean("sum-e6m9-chunks", "off")) < 0.01),
        Check("bfloat16 weights rounded to nearest lose more than 1.5%",
              lambda r: r.mean("bfloat16-nearest") > r.mean("float32") + 0.015),
        Check("bfloat16 weights rounded stochastically lose less than 0.5%",
              lambda r: r.mean("bfloat16-stochastic") < r.mean("float32") + 0.005),
        Check("the paper's 8-bit recipe is within 1% of float32", lambda r: r.mean("8-chunks") < r.mean("float32") + 0.01),
        Check("sums in 1-6-3 lose more than 1% when they run, and less than that in chunks",
              lambda r: r.mean("8-short-running") > r.mean("8-float32") + 0.01 > r.mean("8-short-chunks")),
    ],
    expected=EXPECTED,
    quick=("sum-float32", "sum-e6m9", "sum-e6m9-chunks", "float32", "bfloat16-nearest", "8-chunks"),
    minutes=3,
)  # fmt: skip
