"""Eight-bit floats, e4m3 forward and e5m2 backward, in the place of sixteen bits and with nothing else changed."""

from __future__ import annotations

from typing import Any

from ulpgrad.bench.lab import (
    Check,
    Figures,
    Plot,
    Recipe,
    Results,
    Row,
    Run,
    Study,
    bars,
    curves,
    diverged,
    percent,
    train,
)
from ulpgrad.policy import DelayedScaling, Policy

EXPECTED = {"float32": {"test_error": 0.0176}, "hybrid": {"test_error": 0.0189}}
NEAR = 0.01
SHRUNK = -12  # binades
ORDINARY = "The network as it is"
SMALL = f"The loss × 2^{SHRUNK}, divided out of the gradients again: gradients as small as a larger network's"


def plain(form: str, gradient: str | None = None) -> dict[str, Any]:
    """Products in a format, or two, without scales."""
    return {"weight": form, "activation": form, "gradient": gradient or form, "everywhere": False}


def run(run: Run) -> Figures:
    """Every row has the same recipe."""
    shrunk, kind, options = run.setting
    recipe = Recipe(standardize=True, loss_scale=2.0**SHRUNK if shrunk else 1.0)
    return train(run, recipe, policy=kind(**options) if kind else None)


KINDS: dict[str, tuple[str, Any, dict[str, Any], str]] = {
    "float32": ("float32", None, {}, "Everything in float32: the yardstick."),
    "bfloat16": ("bfloat16", Policy, plain("bfloat16"), "What enters products is rounded to bfloat16."),
    "hybrid": ("hybrid, scaled", DelayedScaling, {}, "Weights and activations enter products in e4m3, gradients in e5m2, each "
               "tensor multiplied by what brought the largest of its values so far to the top of the range."),
    "e4m3-scaled": ("e4m3, scaled", DelayedScaling, {"backward": "float8_e4m3fn"}, "The same with e4m3 backward too."),
    "e5m2-scaled": ("e5m2, scaled", DelayedScaling, {"forward": "float8_e5m2"}, "The same with e5m2 forward too."),
    "hybrid-plain": ("hybrid, not scaled", Policy, plain("float8_e4m3fn", "float8_e5m2"), "As the hybrid, without scales."),
    "e4m3": ("e4m3, not scaled", Policy, plain("float8_e4m3fn"), "e4m3 for everything, without scales."),
    "e5m2": ("e5m2, not scaled", Policy, plain("float8_e5m2"), "e5m2 for everything, without scales."),
}  # fmt: skip


STRAINED = ("float32", "hybrid", "e4m3-scaled", "hybrid-plain", "e4m3", "e5m2")


def row(name: str, shrunk: bool) -> Row:
    """Of one kind of product."""
    label, kind, options, meaning = KINDS[name]
    return Row(label + ", small gradients" * shrunk, (shrunk, kind, options), "" if shrunk else meaning,
               SMALL if shrunk else ORDINARY)  # fmt: skip


def matches(results: Results) -> str:
    """Hybrid beside the wider ones."""
    wide, half, hybrid = (results.estimate(name) for name in ("float32", "bfloat16", "hybrid"))
    apart = max(abs(hybrid.mean - wide.mean), abs(hybrid.mean - half.mean))
    seeds = max(wide.values) - min(wide.values)
    verdict = (
        "no more than seeds differ among themselves" if apart <= seeds else "more than seeds differ among themselves"
    )
    return (
        f"With every hyper-parameter float32's, the hybrid ends at {hybrid.mean:.2%} wrong, bfloat16 at {half.mean:.2%}, float32 "
        f"at {wide.mean:.2%}: {verdict} ({seeds:.2%} in float32)."
    )


def why(results: Results) -> str:
    """What scales and the hybrid are for, once gradients are small."""
    small = {name: results.mean(f"{name}-small") for name in ("e4m3", "e5m2", "hybrid-plain", "e4m3-scaled", "hybrid")}
    return (
        f"This network is so small that 8 bits do without scales too: e4m3 alone ends at {results.mean('e4m3'):.2%}, e5m2 alone "
        f"at {results.mean('e5m2'):.2%}. With gradients 2^{-SHRUNK} times smaller, as in larger networks, formats alone fail: "
        f"e4m3 ends at {small['e4m3']:.1%}, e5m2 at {small['e5m2']:.1%}, the hybrid without scales at "
        f"{small['hybrid-plain']:.1%}; with scales the hybrid ends at {small['hybrid']:.2%} and e4m3 at "
        f"{small['e4m3-scaled']:.2%}. Nobody chose these scales: they follow from the largest values seen."
    )


STUDY = Study(
    title="Eight bits in the place of sixteen",
    source="P. Micikevicius and others, “FP8 formats for deep learning”, 2022",
    claim="With e4m3 for weights and activations, e5m2 for gradients, and a scale for each tensor, products of 8-bit floats "
    "train a network as 16 bits do, with no hyper-parameter changed.",
    first_column="products",
    rows={**{name: row(name, False) for name in KINDS}, **{f"{name}-small": row(name, True) for name in STRAINED}},
    run=run,
    columns=[percent("test error", "test_error"), percent("best error", "best_error"), diverged()],
    plots=[
        Plot("Test error", bars("test error", expected=EXPECTED, rows=list(KINDS)), note="Bars: 95% intervals; dots: seeds; "
             "diamonds: the dry run."),
        Plot("Test error with small gradients", bars("test error", rows=[f"{name}-small" for name in STRAINED])),
        Plot("Training loss", curves("losses", "training loss", ["float32", "bfloat16", "hybrid", "e4m3-scaled"])),
    ],
    see=[matches, why],
    checks=[
        Check("the hybrid is within 1% of float32 and of bfloat16",
              lambda r: max(abs(r.mean("hybrid") - r.mean(name)) for name in ("float32", "bfloat16")) < NEAR),
        Check("with small gradients the scaled hybrid is within 1% of float32, and e4m3 without scales is not",
              lambda r: abs(r.mean("hybrid-small") - r.mean("float32-small")) < NEAR
              and r.mean("e4m3-small") > r.mean("float32-small") + NEAR),
    ],
    expected=EXPECTED,
    quick=("float32", "hybrid"),
    minutes=2,
)  # fmt: skip
