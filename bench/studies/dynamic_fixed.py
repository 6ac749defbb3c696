"""A radix point that moves with its tensor: 10 bits to multiply and 12 to learn, where one fixed radix fails."""

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
from ulpgrad.policy import DynamicFixed, Policy

BITS, UPDATE = 10, 12  # the paper's
RECIPE = Recipe(standardize=True)
PLACES = (1, 2, 3, 4, 5)  # integer bits that a fixed radix leaves
INTERVAL = 10  # uses between two looks at overflow
ROLES = ("weight", "bias", "activation", "gradient", "update")
ENOUGH = "fixed-20-bits"
FAILURE = "q1.14"  # row 1's: 16 bits, 14 of them behind the point
EXPECTED = {"float32": {"test_error": 0.0202}}


def fixed(integer: int, bits: int = BITS, update: int = UPDATE) -> dict[str, Any]:
    """One radix point for everything: `integer` bits before it."""
    word, kept = Q(integer, bits - 1 - integer), Q(integer, update - 1 - integer)
    return {"weight": word, "activation": word, "gradient": word, "update": kept}


def dynamic(bits: int = BITS, update: int = UPDATE) -> dict[str, Any]:
    """A radix point for each role at each layer, moved by the measured overflow."""
    chosen = DynamicFixed(bits, update, interval=INTERVAL)
    return {"weight": chosen, "activation": chosen, "gradient": chosen, "update": chosen}


def run(run: Run) -> Figures:
    """Train under the row's policy. `radix` is where the points stand at the end."""
    if run.setting is None:
        return {**train(run, RECIPE), "radix": {}}
    policy = Policy(**run.setting, seed=run.seed)
    figures = train(run, RECIPE, policy=policy)
    places = policy.state_dict()["places"]
    return {
        **figures,
        "radix": {key: state["integer_bits"] for key, state in places.items() if "integer_bits" in state},
    }


def fixed_row(integer: int) -> str:
    """Name of the row with one radix point."""
    return f"fixed-{integer}"


def radix(axes: Any, results: Results) -> None:
    """Test error against the place of the one radix point, and what moving points reach."""
    there = [m for m in PLACES if fixed_row(m) in results.rows]
    for m in there:
        found = results.estimate(fixed_row(m))
        mean, half = found.mean, found.half or 0.0
        axes.errorbar([m], [mean], [[min(half, 0.9 * mean)], [half]], fmt="o", color=colour(2), markersize=5)
    axes.plot(there, [results.mean(fixed_row(m)) for m in there], color=colour(2), label="one radix point for all")
    axes.axhline(results.mean(ENOUGH), color=colour(3), linestyle=":", label="one radix point, 20 bits")
    axes.axhline(results.mean("dynamic"), color=colour(1), linestyle="--", label="a radix point for each, moving")
    axes.axhline(results.mean("float32"), color=INK, linewidth=4, alpha=0.3, label="float32")
    axes.set(xlabel="integer bits of the fixed radix", ylabel="test error", yscale="log", xticks=there)
    plain_ticks(axes.yaxis, share=True)
    axes.legend()


def points(axes: Any, results: Results) -> None:
    """Where the points of the first seed stand at the end, by role: the values that a tensor's word can hold, 2^integer bits."""
    found: dict[str, list[int]] = {}
    for key, bits in results.of("dynamic")[0]["radix"].items():
        if bits is not None:
            found.setdefault(role(key), []).append(bits)
    for at, bits in enumerate(found.values()):
        for place in sorted(set(bits)):
            axes.scatter([place], [at], s=40 * bits.count(place), color=colour(1), alpha=0.8, linewidths=0)
    axes.set_yticks(range(len(found)), list(found))
    axes.set(xlabel="integer bits (negative: leading zeros that are not stored)", ylim=(len(found) - 0.5, -0.5))


def role(key: str) -> str:
    """The role in a place's key."""
    return next((name for name in ROLES if key.startswith(name)), key)


def cured(results: Results) -> list[str]:
    """The failure, the cure, and what one fixed radix can do at best."""
    failed = max(results.mean(f"{FAILURE}-{mode}") for mode in ("nearest", "stochastic"))
    best = min(PLACES, key=lambda m: results.mean(fixed_row(m)))
    worst = [f"{results.mean(fixed_row(m)):.1%} with {m}" for m in PLACES]
    return [
        f"Row 1's failure: 16 bits with 14 behind the point end at {failed:.1%} wrong, because 2 is the largest value there is, "
        f"however it is rounded. With the same 16 bits and moving points it is {results.mean('dynamic-16'):.2%}.",
        f"With {BITS} bits to multiply and {UPDATE} to learn, one radix point for everything ends, by its integer bits, at "
        + ", ".join(worst)
        + f": too few and activations overflow, too many and gradients vanish. The best, {best}, has "
        f"{results.mean(fixed_row(best)):.1%}; moving points reach {results.mean('dynamic'):.2%}, float32 "
        f"{results.mean('float32'):.2%}. One radix point takes 20 bits, as in the paper: Q(5, 14) ends at "
        f"{results.mean(ENOUGH):.2%}.",
    ]


STUDY = Study(
    title="A radix point that moves: 10 bits to multiply, 12 to learn",
    source="M. Courbariaux, Y. Bengio and J.-P. David, “Training deep neural networks with low precision multiplications”, 2014",
    claim="Fixed point fails when one radix point must serve weights, activations and gradients alike. With a point for each "
    "group of tensors, moved by the measured rate of overflow, 10 bits multiply and 12 bits learn.",
    note=f"The moving points are looked at every {INTERVAL} uses, 1,000 images. The paper's 10,000 images are an eighth of this "
    "whole training: outputs then stay cut off for so long that it does not recover.",
    first_column="format",
    rows={
        "float32": Row("float32", None, "Everything in float32: the yardstick."),
        f"{FAILURE}-nearest": Row("Q(1, 14), nearest", fixed(1, 16, 16), "16 bits for everything, one radix point; rounded "
                                  "to nearest: fails in the study of row 1, for want of range."),
        f"{FAILURE}-stochastic": Row("Q(1, 14), stochastic", {**fixed(1, 16, 16), "rounding": "stochastic"},
                                     "The same, rounded stochastically: fails too."),
        "dynamic-16": Row("dynamic, 16 and 16 bits", dynamic(16, 16), "The same word with moving radix points."),
        **{
            fixed_row(m): Row(f"Q({m}, {BITS - 1 - m}), update Q({m}, {UPDATE - 1 - m})", fixed(m),
                              f"{BITS} bits to multiply, {UPDATE} to keep weights, {m} integer bits everywhere.")
            for m in PLACES
        },
        ENOUGH: Row("Q(5, 14)", fixed(5, 20, 20),
                    "20 bits for everything, one radix point: as many as the paper found it needs."),
        "dynamic": Row(f"dynamic, {BITS} and {UPDATE} bits", dynamic(),
                       f"{BITS} bits to multiply, {UPDATE} to keep weights, each group with a radix point of its own."),
    },
    run=run,
    columns=[percent("test error", "test_error"), percent("best error", "best_error"), diverged()],
    plots=[
        Plot("One radix point or many", radix),
        Plot("Where the points stand at the end", points, note="By role; large dots are several tensors. First seed."),
        Plot("Test error", bars("test error", expected=EXPECTED)),
        Plot("Training loss", curves("losses", "training loss",
                                     ["float32", f"{FAILURE}-nearest", "dynamic-16", "dynamic", fixed_row(2)])),
    ],
    see=[cured],
    checks=[
        Check("16 bits with 14 behind the point fail under both roundings (above 20% wrong)",
              lambda r: min(r.mean(f"{FAILURE}-{mode}") for mode in ("nearest", "stochastic")) > 0.2),
        Check("moving points cure it: the same 16 bits end within 1% of float32",
              lambda r: r.mean("dynamic-16") - r.mean("float32") < 0.01),
        Check("10 and 12 bits with moving points end within 2% of float32",
              lambda r: r.mean("dynamic") - r.mean("float32") < 0.02),
        Check("20 bits with one radix point end within 2% of float32", lambda r: r.mean(ENOUGH) - r.mean("float32") < 0.02),
        Check("no fixed radix of 10 and 12 bits does as well",
              lambda r: min(r.mean(fixed_row(m)) for m in PLACES) > r.mean("dynamic")),
    ],
    expected=EXPECTED,
    quick=("float32", f"{FAILURE}-nearest", fixed_row(2), "dynamic"),
    batch_size=100,
    minutes=1,
)  # fmt: skip
