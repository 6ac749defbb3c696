"""Sixteen bits of fixed point: rounded to nearest they stop learning, rounded stochastically they learn like float32."""

from __future__ import annotations

from typing import Any

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
    percent,
    train,
)
from ulpgrad.bench.lab.plots import plain_ticks
from ulpgrad.formats import Q
from ulpgrad.policy import Policy

BITS = 16
FRACTIONS = (8, 10, 12, 14)
MODES = {"nearest": "nearest_even", "stochastic": "stochastic"}
EXPECTED = {
    "float32": 0.0202, "q7.8-nearest": 0.892, "q7.8-stochastic": 0.0252, "q5.10-nearest": 0.403, "q5.10-stochastic": 0.0227,
}  # fmt: skip


def run(run: Run) -> Figures:
    """Weights, activations, gradients and what is left of an update: all in one format, rounded one way."""
    if run.setting is None:
        return train(run, Recipe(standardize=True))
    fraction, mode = run.setting
    word = Q(BITS - 1 - fraction, fraction)
    policy = Policy(weight=word, activation=word, gradient=word, update=word, rounding=MODES[mode], seed=run.seed)
    return train(run, Recipe(standardize=True), policy=policy)


def name(fraction: int, mode: str) -> str:
    """Of a row."""
    return f"q{BITS - 1 - fraction}.{fraction}-{mode}"


def place(axes: Any, results: Results) -> None:
    """Test error against the fraction bits, a line for each rounding."""
    for i, mode in enumerate(MODES, 1):
        there = [f for f in FRACTIONS if name(f, mode) in results.rows]
        for f in there:
            axes.plot([f] * results.seeds, results.estimate(name(f, mode)).values, ".", color=colour(i), alpha=0.7)
        axes.plot(there, [results.mean(name(f, mode)) for f in there], color=colour(i), linestyle="-" if i == 2 else "--",
                  marker="o", markersize=5, label=mode)  # fmt: skip
    axes.axhline(results.mean("float32"), color=INK, linewidth=4, alpha=0.3, label="float32")
    axes.set(xlabel=f"fraction bits of {BITS}", ylabel="test error", yscale="log", xticks=FRACTIONS)
    plain_ticks(axes.yaxis, share=True)
    axes.legend()


def rounded(results: Results) -> str:
    """The two roundings, where range suffices."""
    pairs = [(results.mean(name(f, "nearest")), results.mean(name(f, "stochastic"))) for f in (8, 10)]
    return (
        f"With 8 fraction bits nearest rounding ends at {pairs[0][0]:.1%} wrong, stochastic at {pairs[0][1]:.2%}; with 10, "
        f"{pairs[1][0]:.1%} and {pairs[1][1]:.2%}; float32 reaches {results.mean('float32'):.2%}."
    )


def drift(results: Results) -> str:
    """How nearest rounding fails: not by standing still, but by a bias."""
    last = {mode: results.curve(name(10, mode), "mean_outputs")[-1] for mode in MODES}
    best = results.mean(name(10, "nearest"), "best_error")
    return (
        f"Nearest rounding does learn at first (10 fraction bits: {best:.1%} at best) and then runs into a wall. The gradient of "
        "an output is large and negative for the right class, small and positive for the nine wrong ones; divided by a batch of "
        f"{STUDY.batch_size}, the small ones are under half a step of the format and are lost. What is left pulls all outputs "
        f"up together: their mean ends at {last['nearest']:.1f}, stochastically rounded at {last['stochastic']:.1f}, and 32 is "
        "the end of the range. Rounding that is right in the mean has no such pull."
    )


def out_of_range(results: Results) -> str:
    """More fraction bits leave too few before the point."""
    errors = [results.mean(name(f, mode)) for f in (12, 14) for mode in MODES]
    return (
        f"With 12 and 14 fraction bits both fail ({min(errors):.0%} to {max(errors):.0%} wrong), and no rounding helps: the "
        "largest numbers are 8 and 2, outputs grow beyond and are cut there. A radix point that moves cures it: see the study "
        "dynamic-fixed."
    )


STUDY = Study(
    title="Sixteen bits of fixed point: nearest or stochastic rounding?",
    source="S. Gupta, A. Agrawal, K. Gopalakrishnan and P. Narayanan, “Deep learning with limited numerical precision”, "
    "ICML 2015",
    claim="In 16-bit fixed point a network learns with stochastic rounding as it does in float32, and fails with rounding to "
    "nearest: gradients and updates smaller than half a step of the format are lost one by one, though together they matter.",
    first_column="format",
    rows={
        "float32": Row("float32", None, "Everything in float32: the yardstick."),
        **{
            name(f, mode): Row(f"Q({BITS - 1 - f}, {f}), {mode}", (f, mode), f"Weights, activations, gradients and updates in "
                               f"{BITS} bits, {f} behind the point: steps of 2^-{f}, up to {2 ** (BITS - 1 - f)}.",
                               tags={"format": f"q{BITS - 1 - f}.{f}"})
            for f in FRACTIONS for mode in MODES
        },
    },
    run=run,
    columns=[percent("test error", "test_error"), percent("best error", "best_error"), diverged()],
    plots=[
        Plot("Where the point stands, and how is rounded", place),
        Plot("Training loss", curves("losses", "training loss", ["float32", *(name(f, m) for f in (8, 10) for m in MODES)])),
        Plot("Rounding to nearest makes the outputs drift",
             curves("mean_outputs", "mean of all outputs", [name(10, m) for m in MODES], log=False)),
        Plot("Test error", bars("test error", expected={row: {"test_error": e} for row, e in EXPECTED.items()}),
             note="Bars: 95% intervals; dots: seeds; diamonds: the dry run."),
    ],
    see=[rounded, drift, out_of_range],
    checks=[
        Check("8 and 10 fraction bits learn with stochastic rounding: within 2% of float32",
              lambda r: max(r.mean(name(f, "stochastic")) for f in (8, 10)) < r.mean("float32") + 0.02),
        Check("8 and 10 fraction bits do not with nearest: ten times float32's error or more",
              lambda r: min(r.mean(name(f, "nearest")) for f in (8, 10)) > 10 * r.mean("float32")),
        Check("12 and 14 fraction bits fail under both (above 20% wrong)",
              lambda r: min(r.mean(name(f, mode)) for f in (12, 14) for mode in MODES) > 0.2),
    ],
    expected={row: {"test_error": error} for row, error in EXPECTED.items()},
    note="Batches of 100, as the effect needs small gradients: in a trial of one seed with 32, nearest rounding survived.",
    quick=("float32", "q7.8-nearest", "q7.8-stochastic"),
    batch_size=100,
    minutes=1,
)  # fmt: skip
