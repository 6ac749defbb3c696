"""How few bits do a network's weights, activations and gradients need? DoReFa-Net's grid on a small convolutional network."""

from __future__ import annotations

from typing import Any

from ulpgrad import nn, optim
from ulpgrad.bench.lab import (
    INK,
    PAPER,
    Check,
    Figures,
    Plot,
    Recipe,
    Results,
    Row,
    Run,
    Study,
    colour,
    diverged,
    percent,
    train,
)
from ulpgrad.bench.lab.plots import plain_ticks
from ulpgrad.policy import Policy, dorefa

FULL = 32  # stands for float32, as in the paper's tables
ACTIVATIONS = (1, 2, 4, FULL)
GRADIENTS = (2, 4, 6, 8, FULL)
OTHERS = ((8, 8, 8), (FULL, 2, FULL))
PLACES = {"digits": 4 * 4, "mnist": 14 * 14}  # after pooling
LEARNING_RATE = 1e-3
NAMED = "W1A2G6"
BASE = f"W{FULL}A{FULL}G{FULL}"
MOST = 0.03  # of test error that the named one may lose


def network(dataset: str) -> nn.Module:
    """Convolutions 3 × 3 with 16, 32 and 32 filters and dense layers 512-64-10 (6272-64-10 for MNIST), each product normalised
    over the batch."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * PLACES[dataset], 64, bias=False), nn.BatchNorm1d(64), nn.ReLU(),
        nn.Linear(64, 10),
    )  # fmt: skip


FIRST, LAST = "0", "14"  # left in float32, as in the paper


def policy(weight: int, activation: int, gradient: int, seed: int) -> Policy:
    """The paper's quantisers for so many bits; none for 32."""
    return Policy(
        weight=None if weight == FULL else dorefa.weight(weight),
        activation=None if activation == FULL else dorefa.activation(activation),
        gradient=None if gradient == FULL else dorefa.gradient(gradient, seed),
        overrides={FIRST: None, LAST: None},
    )


def run(run: Run) -> Figures:
    """Train one network with Adam."""
    weight, activation, gradient = run.setting
    formats = policy(weight, activation, gradient, run.seed)

    def prepare(model: nn.Module) -> optim.Optimizer:
        formats.bind(model)
        return optim.Adam(model.parameters(), lr=LEARNING_RATE)

    return train(run, Recipe(network=network), policy=formats, prepare=prepare)


def name(weight: int, activation: int, gradient: int) -> str:
    """As the paper writes it."""
    return f"W{weight}A{activation}G{gradient}"


def grid(axes: Any, results: Results) -> None:
    """Test error over the bits of activations and gradients, with weights of one bit: the darker, the worse."""
    found = {}
    for i, a in enumerate(ACTIVATIONS):
        for j, g in enumerate(GRADIENTS):
            if name(1, a, g) in results.rows:
                found[i, j] = results.mean(name(1, a, g))
    top = max(found.values(), default=1.0)
    for (i, j), error in found.items():
        share = (error / top) ** 0.5
        axes.barh(i, 1, 1, left=j - 0.5, color=colour(2), alpha=0.08 + 0.9 * share, linewidth=1)
        axes.text(j, i, f"{error:.1%}", ha="center", va="center", color=PAPER if share > 0.75 else INK)
    axes.set_xticks(range(len(GRADIENTS)), [_bits(g) for g in GRADIENTS])
    axes.set_yticks(range(len(ACTIVATIONS)), [_bits(a) for a in ACTIVATIONS])
    axes.set(xlabel="gradients", ylabel="activations")
    axes.grid(visible=False)


def lines(axes: Any, results: Results) -> None:
    """Test error against the bits of gradients, a line for each number of activation bits."""
    for i, a in enumerate(ACTIVATIONS):
        there = [(j, results.estimate(name(1, a, g))) for j, g in enumerate(GRADIENTS) if name(1, a, g) in results.rows]
        if there:
            means, halves = [e.mean for _, e in there], [e.half or 0.0 for _, e in there]
            low = [min(half, 0.6 * mean) for mean, half in zip(means, halves, strict=True)]
            axes.errorbar([j + (i - 1.5) * 0.06 for j, _ in there], means, [low, halves], color=colour(i + 1), elinewidth=1,
                          marker="o", markersize=4, label=f"activations: {_bits(a)}")  # fmt: skip
    if BASE in results.rows:
        axes.axhline(results.mean(BASE), color=INK, linewidth=1, linestyle="--", label="all float32")
    axes.set_xticks(range(len(GRADIENTS)), [_bits(g) for g in GRADIENTS])
    axes.set(xlabel="gradients", ylabel="test error", yscale="log")
    plain_ticks(axes.yaxis, share=True)
    axes.legend()


def _bits(bits: int) -> str:
    return "float32" if bits == FULL else f"{bits} bit{'s' * (bits > 1)}"


def bits_needed(results: Results) -> list[str]:
    """What each of the three loses."""
    base, named = results.estimate(BASE), results.estimate(NAMED)
    gradients = {g: results.mean(name(1, 2, g)) for g in GRADIENTS}
    activations = {a: results.mean(name(1, a, FULL)) for a in ACTIVATIONS}
    return [
        f"{NAMED} ends at {named.mean:.2%} wrong, float32 at {base.mean:.2%}: {1 - named.mean:.1%} right against "
        f"{1 - base.mean:.1%}. On ImageNet the paper's AlexNet keeps 46.1% of 55.9%, a harder task with less to spare.",
        "Gradients need the most bits: with weights of 1 bit and activations of 2, "
        + ", ".join(f"{_bits(g)} {error:.1%}" for g, error in gradients.items())
        + " wrong. They are rounded with noise, so that they are right in the mean: what few bits leave is variance.",
        "Activations, with weights of 1 bit and gradients left alone: "
        + ", ".join(f"{_bits(a)} {error:.1%}" for a, error in activations.items())
        + " wrong.",
    ]


CELLS = [(1, a, g) for a in ACTIVATIONS for g in GRADIENTS]

STUDY = Study(
    title="How few bits? Weights, activations and gradients of a small network",
    source="S. Zhou and others, “DoReFa-Net: training low bitwidth convolutional neural networks with low bitwidth gradients”, "
    "2016, tables 1 and 2",
    claim="Weights of one bit, activations of two and gradients of six keep most of the accuracy. Weights need the fewest bits "
    "and gradients the most.",
    setup="A network of three convolutions and two dense layers, each followed by batch norm, learns handwritten digits by Adam. "
    "WxAyGz: so many bits for weights, activations and gradients; 32 stands for float32. First and last layer are left in "
    "float32, as in the paper, and so are the weights that are stepped.",
    first_column="bits",
    rows={
        BASE: Row(BASE, (FULL, FULL, FULL), "Nothing is quantised: the yardstick."),
        **{name(*bits): Row(name(*bits), bits, "") for bits in (*OTHERS, *CELLS)},
    },
    run=run,
    columns=[percent("test error", "test_error"), percent("best error", "best_error"), diverged()],
    plots=[Plot("Test error with weights of one bit", grid), Plot("Gradients need the most bits", lines)],
    see=[bits_needed],
    checks=[
        Check(f"{NAMED} keeps the accuracy to within {MOST:.0%}", lambda r: r.mean(NAMED) - r.mean(BASE) < MOST),
        Check("gradients of 2 bits are worse than of 6",
              lambda r: r.mean("W1A2G2") > r.mean("W1A2G6")),
        Check("activations of 1 bit are worse than of 2",
              lambda r: r.mean(f"W1A1G{FULL}") > r.mean(f"W1A2G{FULL}")),
        Check("8 bits of everything lose nothing (1% at most)", lambda r: r.mean("W8A8G8") - r.mean(BASE) < 0.01),
    ],
    quick=(BASE, NAMED, "W1A2G2"),
    epochs=10,
    minutes=4,
)  # fmt: skip
