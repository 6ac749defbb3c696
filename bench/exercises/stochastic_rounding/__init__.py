"""Rounding by chance, so that the mean is right."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial
from ulpgrad.formats import Array, Q, Random

BITS = 24
STEP = 2.0**-8


def check(trial: Trial) -> None:
    rng = trial.rng
    judge(trial, np.abs(values(rng, 200)), "positive values")
    judge(trial, values(rng, 200), "values of both signs")
    judge(trial, rng.integers(-500, 500, (4, 5)) * STEP, "values that are on the grid")
    trial.stage("the mean of many roundings")
    x = np.full(4000, values(rng, 1)[0])
    mean = float(np.mean(trial.call("round_stochastic", x, STEP, words(rng, x.shape)[1])))
    if abs(mean - x[0]) > 5 * STEP / np.sqrt(len(x)):
        trial.wrong(f"{len(x)} roundings of {x[0]:.9g} have the mean {mean:.9g}: more than chance allows.")


def values(rng: np.random.Generator, count: int) -> Array:
    """Values whose fraction of a step is exact in 22 bits."""
    return np.asarray(np.rint(rng.uniform(-3, 3, count) * 2.0**30) / 2.0**30)


def words(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, Array]:
    drawn = rng.integers(0, 2**32, shape, dtype=np.uint32)
    drawn.flat[0] >>= 2  # below 1/4, so that one draw for all is not taken for rounding to nearest
    return drawn, (drawn >> (32 - BITS)) / 2.0**BITS


def judge(trial: Trial, x: Array, name: str) -> None:
    trial.stage(name)
    drawn, u = words(trial.rng, x.shape)
    form = Q(7, 8)
    want = form.exact(form.encode(x, "stochastic", random=Random(drawn, BITS)))
    units, sign = np.abs(x) / STEP, np.sign(x)
    trial.same(trial.call("round_stochastic", x, STEP, u), want, what="the result", suspects={
        "That is the nearest multiple, whatever was drawn: small updates of a weight are then lost, each and every "
        "one.":
            np.rint(x / STEP) * STEP,
        "That is always toward zero.": sign * np.floor(units) * STEP,
        "Every element went by the same draw (the first): the errors of a whole tensor then point in one direction. "
        "Use u "
        "element by element.": sign * np.floor(units + u.flat[0]) * STEP,
        "Negative values went the other way: take the size first, round it, and put the sign back.":
            np.floor(x / STEP + u) * STEP,
        "The chance is turned round: a size with the fraction f goes up with chance f, that is, if f + u reaches 1.":
            sign * (np.floor(units) + (units % 1 + u < 1)) * STEP,
        "The chance is right, but which draws go up is not as agreed: where f + u reaches 1, not where f is above u. "
        "With the "
        "same draws, results are to be the same bits everywhere.": sign * (np.floor(units) + (units % 1 > u)) * STEP,
        "The result is counted in steps: multiply by the step again.": want / STEP,
    })  # fmt: skip


EXERCISE = Exercise(
    rank=140,
    title="Add stochastic rounding",
    teaches="Rounding up with the chance of the fraction makes the mean right; that is how 16-bit fixed point trains.",
    asks=("round_stochastic",),
    check=check,
    forbids={"encode": "Write the rounding.", "quantize": "Write the rounding.", "fake_quantize": "Write the "
            "rounding."},
    hints=(
        "Count in steps: `units = abs(x) / step`. What lies between floor(units) and units is the fraction f, from 0 "
        "up to 1.",
        "It should go up with chance f. `u` is uniform in [0, 1): f + u >= 1 happens with exactly that chance.",
        "floor(units + u) says the same in one go. Then the sign and the step: `np.copysign(... * step, x)`.",
    ),
    mistakes=(
        Mistake("rounds to nearest", {"np.abs(x) / step + u": "np.abs(x) / step + 0.5"}, r"nearest multiple"),
        Mistake("draws once for all", {"step + u": "step + u.ravel()[0]"}, r"same draw"),
        Mistake("floors negative values", {"np.copysign(np.floor(np.abs(x) / step + u) * step, x)": "np.floor(x / "
                "step + u) * step"},
                r"take the size first"),
        Mistake("cuts off", {" + u)": ")"}, r"toward zero"),
        Mistake("turns the chance round", {"np.floor(np.abs(x) / step + u)":
                "(np.floor(np.abs(x) / step) + (np.abs(x) / step % 1 + u < 1))"}, r"turned round"),
        Mistake("draws the other way", {"np.floor(np.abs(x) / step + u)":
                "(np.floor(np.abs(x) / step) + (np.abs(x) / step % 1 > u))"}, r"not as agreed"),
        Mistake("forgets the step", {" * step, x)": ", x)"}, r"counted in steps"),
    ),
)  # fmt: skip
