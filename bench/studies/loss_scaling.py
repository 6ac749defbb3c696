"""Gradients too small for float16 or 8 bits: what a factor on the loss rescues, and what too large a one destroys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ulpgrad import nn, ops, optim
from ulpgrad.bench.lab import (
    INK,
    Check,
    Column,
    Figures,
    Plot,
    Recipe,
    Results,
    Row,
    Run,
    Study,
    colour,
    curves,
    divide_gradients,
    percent,
    train,
)
from ulpgrad.bench.lab.plots import dash, plain_ticks
from ulpgrad.policy import GradScaler, Policy
from ulpgrad.tensor import Tensor

SHRUNK = -18  # binades: the loss is made as small as a far larger network's gradients are
SMALLEST = 2.0**-24  # of float16
HALF = (0, 4, 8, 14, 22, 30, 38)  # binades that float16's loss is scaled by
PAPER = (0, 8, 14)
EIGHT = tuple(range(-12, 29, 4))  # and e4m3's
GROWTH_INTERVAL = 100  # steps: the usual 2000 is more than a run has
NEAR = 0.01
LEARNING_RATE = 0.2
EXPECTED = {"float32": 0.0202, "float16+0": 0.919, "float16+8": 0.0227, "float16+14": 0.0202}


class Scale:
    """One factor for the whole training. A step whose gradients are not all finite is skipped."""

    def __init__(self, binades: int) -> None:
        self.factor = 2.0**binades
        self.skipped = 0

    def __call__(self, policy: Policy, loss: Tensor, optimizer: optim.Optimizer) -> None:
        (loss * self.factor).backward()
        if divide_gradients(optimizer, self.factor):
            policy.step(optimizer)
        else:
            self.skipped += 1


class Dynamic:
    """A factor that GradScaler finds, on top of one that shrinks the loss."""

    def __init__(self, binades: int) -> None:
        self.shrink = 2.0**binades
        self.scaler = GradScaler(growth_interval=GROWTH_INTERVAL)

    def __call__(self, policy: Policy, loss: Tensor, optimizer: optim.Optimizer) -> None:
        self.scaler.scale(loss * self.shrink).backward()
        self.scaler.unscale_(optimizer)
        divide_gradients(optimizer, self.shrink)
        policy.step(optimizer, self.scaler)
        self.scaler.update()

    @property
    def skipped(self) -> int:
        return self.scaler.skipped


def run(run: Run) -> Figures:
    """Gradients in one format, the loss multiplied by one factor, which the step divides out again in float32.

    Of the weights' gradients, before that: the shares that are zero, and that lie under float16's smallest number.
    """
    gradient, shrink, binades = run.setting
    formats = {} if gradient is None else {"weight": "float16", "activation": "float16", "gradient": gradient}
    policy = Policy(**formats, overflow={"gradient": "ieee" if gradient == "float16" else "saturate"})
    scale = Dynamic(shrink) if binades is None else Scale(shrink + binades)
    small = zeros = values = 0

    def step(model: nn.Module, optimizer: optim.Optimizer, x: Tensor, y: Tensor) -> float:
        nonlocal small, zeros, values
        optimizer.zero_grad()
        loss = ops.cross_entropy(model(x), y)
        scale(policy, loss, optimizer)
        for p in model.parameters():
            if p.ndim > 1 and p.grad is not None:
                size = np.abs(p.grad.storage)
                small += int(np.count_nonzero((size > 0) & (size < SMALLEST)))
                zeros += size.size - int(np.count_nonzero(size))
                values += size.size
        return float(loss.item())

    figures = train(run, Recipe(learning_rate=LEARNING_RATE, standardize=True), policy=policy, step=step)
    return {**figures, "small": small / values, "zeros": zeros / values, "skipped": scale.skipped}


def name(form: str, binades: int | None) -> str:
    """Of a row."""
    return f"{form}-dynamic" if binades is None else f"{form}{binades:+d}"


def skipped_steps(runs: Sequence[Figures]) -> str:
    """Over all seeds."""
    return f"{sum(r['skipped'] for r in runs)} of {sum(r['steps'] for r in runs)}"


def curve(axes: Any, results: Results) -> None:
    """Test error against the factor: a valley between gradients too small and too large."""
    for i, (form, shrink, scales) in enumerate((("e4m3", 0, EIGHT), ("float16", SHRUNK, HALF)), 1):
        there = [b for b in scales if name(form, b) in results.rows]
        for b in there:
            values = results.estimate(name(form, b)).values
            axes.plot([shrink + b] * len(values), values, ".", color=colour(i), alpha=0.7)
        axes.plot([shrink + b for b in there], [results.mean(name(form, b)) for b in there], color=colour(i), marker="o",
                  linestyle=dash(i), markersize=5, label=f"{form} gradients")  # fmt: skip
    axes.axhline(results.mean("float32"), color=INK, linewidth=4, alpha=0.3, label="float32")
    axes.set(xlabel="log2 of what the loss is multiplied by, in all", ylabel="test error", yscale="log")
    plain_ticks(axes.yaxis, share=True)
    axes.legend()


def lost(axes: Any, results: Results) -> None:
    """The share of the weights' gradients that are zero, against the factor."""
    for i, (form, shrink, scales) in enumerate((("e4m3", 0, EIGHT), ("float16", SHRUNK, HALF)), 1):
        there = [b for b in scales if name(form, b) in results.rows]
        axes.plot([shrink + b for b in there], [results.mean(name(form, b), "zeros") for b in there], color=colour(i),
                  linestyle=dash(i), marker="o", markersize=5, label=f"{form} gradients")  # fmt: skip
    axes.axhline(results.mean("float32", "zeros"), color=INK, linewidth=4, alpha=0.3, label="float32")
    axes.set(xlabel="log2 of what the loss is multiplied by, in all", ylabel="zero gradients", ylim=(0, 1.03))
    plain_ticks(axes.yaxis, share=True)
    axes.legend()


def rescued(results: Results) -> str:
    """What scaling brings to float16."""
    none, *scaled = (results.mean(name("float16", b)) for b in PAPER)
    return (
        f"A loss multiplied by 2^{SHRUNK} stands for a larger network, whose gradients are that much smaller. Without a scale "
        f"{results.mean(name('float16', 0), 'zeros'):.1%} of the weights' gradients are zero in float16 and training ends at "
        f"{none:.1%} wrong; scaled by 2^{PAPER[1]} and 2^{PAPER[2]} it ends at {scaled[0]:.2%} and {scaled[1]:.2%}, with "
        f"GradScaler's own search at {results.mean(name('float16', None)):.2%}, in float32 at {results.mean('float32'):.2%}."
    )


def under(results: Results) -> str:
    """How many gradients of an ordinary network float16 would lose."""
    small, zeros = results.mean("float32", "small"), results.mean("float32", "zeros")
    return (
        f"Left alone, this small network's gradients suit float16: {small:.1%} of the weights' are under its smallest number, "
        f"2^-24, beside {zeros:.1%} that are exactly zero. The paper finds about "
        "5% under 2^-24 in a large speech network."
    )


def valley(results: Results) -> str:
    """The U of eight bits."""
    good = [b for b in EIGHT if results.mean(name("e4m3", b)) < results.mean("float32") + NEAR]
    ends = results.mean(name("e4m3", EIGHT[0])), results.mean(name("e4m3", EIGHT[-1]))
    inside = (
        f"from 2^{good[0]} to 2^{good[-1]} it is within {NEAR:.0%} of float32's"
        if good
        else "it never comes near float32's"
    )
    return (
        f"Gradients in e4m3, which spans 18 binades to float16's 40, show the whole curve in less room: with the loss times "
        f"2^{EIGHT[0]} all of them are zero and the error stays at {ends[0]:.0%}; {inside}; times 2^{EIGHT[-1]} they saturate at "
        f"448, and the error is {ends[1]:.0%}."
    )


STUDY = Study(
    title="Scaling the loss: gradients too small for their format",
    source="P. Micikevicius and others, “Mixed precision training”, ICLR 2018",
    claim="Gradients below the smallest number of their format become zero and training stops; multiplying the loss moves them "
    "into range, and dividing the factor out before the step costs nothing. Between too small and too large lies a valley, wide "
    "in float16 and narrow in 8 bits.",
    first_column="gradients",
    rows={
        "float32": Row("float32", (None, 0, 0), "Weights, activations, gradients in float32: the yardstick."),
        **{
            name("float16", b): Row(f"float16, 2^{SHRUNK} × 2^{b}", ("float16", SHRUNK, b), "Weights, activations and gradients "
                                    f"in float16, weights that are stepped in float32; a loss shrunk by 2^{SHRUNK}, then "
                                    f"multiplied by 2^{b}.", tags={"format": "float16"})
            for b in HALF
        },
        name("float16", None): Row(f"float16, 2^{SHRUNK} × GradScaler", ("float16", SHRUNK, None), "The same with the scale that "
                                   f"GradScaler finds: doubled every {GROWTH_INTERVAL} steps, halved when a gradient overflows.",
                                   tags={"format": "float16"}),
        **{
            name("e4m3", b): Row(f"e4m3, 2^{b}", ("float8_e4m3fn", 0, b), "Weights and activations in float16, gradients in 8 "
                                 f"bits (saturating); the loss multiplied by 2^{b}.", tags={"format": "e4m3"})
            for b in EIGHT
        },
    },
    run=run,
    columns=[percent("test error", "test_error"), percent("zero", "zeros"), percent("under 2^-24", "small"),
             Column("skipped steps", skipped_steps)],
    plots=[
        Plot("Too small, right, too large", curve),
        Plot("Weights' gradients that are zero", lost),
        Plot("Training loss", curves("losses", "training loss", ["float32", *(name("float16", b) for b in (*PAPER, None))])),
    ],
    see=[rescued, under, valley],
    checks=[
        Check("float16 without a scale does not learn (above 50% wrong)", lambda r: r.mean(name("float16", 0)) > 0.5),
        Check("scales of 2^8 and 2^14, and GradScaler's, end within 1% of float32",
              lambda r: max(r.mean(name("float16", b)) for b in (8, 14, None)) < r.mean("float32") + 0.01),
        Check("between 0.1% and 20% of the weights' gradients lie under 2^-24",
              lambda r: 0.001 < r.mean("float32", "small") < 0.2),
        Check("e4m3 traces a U: both ends above 50% wrong, some factor within 1% of float32",
              lambda r: min(r.mean(name("e4m3", b)) for b in (EIGHT[0], EIGHT[-1])) > 0.5
              and min(r.mean(name("e4m3", b)) for b in EIGHT) < r.mean("float32") + NEAR),
    ],
    expected={row: {"test_error": error} for row, error in EXPECTED.items()},
    note="Zero, under 2^-24: shares of the weights' gradients over the whole training, after the factor was divided out. "
    f"A gradient divided by a batch of 200 and shrunk by 2^{SHRUNK} is under half of float16's smallest number.",
    quick=("float32", name("float16", 0), name("float16", 8)),
    batch_size=200,
    minutes=2,
)  # fmt: skip
