"""A long sum that loses no digits."""

from __future__ import annotations

import math

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial


def check(trial: Trial) -> None:
    for n, name in ((1, "one value"), (1000, "a thousand values"), (20_000, "twenty thousand values")):
        trial.stage(name)
        x = trial.rng.uniform(0.1, 1, n)
        judge(trial, x, "")
    trial.stage("small values after a large one")
    x = trial.rng.uniform(0.1, 0.9, 1001)
    x[0] = 2.0**53 * trial.rng.integers(2, 5)
    judge(trial, x, (
        f" Each of the {len(x) - 1} small values is less than half a step at {x[0]:g}: added to that alone, it "
        f"changes nothing. What was "
        "lost has to be kept and added to the next value."
    ))  # fmt: skip


def judge(trial: Trial, x: np.ndarray, why: str) -> None:
    out = trial.blank(1, np.float64)
    trial.call("total", x, out, writes=[1])
    want = math.fsum(x)
    if np.isfinite(out[0]) and out[0] == np.add.accumulate(x)[-1] and abs(out[0] - want) > np.spacing(want):
        lost = abs(out[0] - want) / np.spacing(want)
        trial.wrong(
            f"The sum is {out[0]:.17g}, {lost:.0f} units in the last place away: exactly what adding one after the "
            f"other gives."
            + (
                why
                or " Each addition rounds, and the roundings add up. The part that is cut off can be computed, and "
                "given back."
            )
        )
    if not abs(out[0] - want) < 1e-6 * want:
        trial.wrong(
            f"The sum is {out[0]:.6g}; right is {want:.6g}. What is given back is not what was lost: take both from "
            f"the same "
            "addition, t - total with the total before it, and only then let t become the total."
        )
    trial.near(out, np.array([want]), ulps=2, what="out")


EXERCISE = Exercise(
    rank=100,
    title="Reduce without losing digits",
    teaches="What an addition rounds away can be computed exactly, and carried along.",
    asks=("total",),
    check=check,
    requires=("numba",),
    forbids={"fsum": "That is the answer to compare with.", "longdouble": "Two float64 numbers are enough.",
             "sum": "Write the loop.", "fastmath": "With it, the compiler cancels what you compute here: (t - total) "
                     "- y is 0 on paper."},
    hints=(
        "After `t = total + y`, the part of y that arrived is t - total. What is y minus that?",
        "Keep a second variable `lost`. Before adding the next value, take from it what was too much before: `y = "
        "x[i] - lost`.",
        "`t = total + y; lost = (t - total) - y; total = t`: three more operations per value (Kahan 1965).",
    ),
    mistakes=(
        Mistake("adds one after the other", {"y = x[i] - lost": "y = x[i]"}, r"adding one after the other gives"),
        Mistake("gives back with the wrong sign", {"y = x[i] - lost": "y = x[i] + lost"}, r"units in the last place"),
        Mistake("computes what is lost too late", {
            "        lost = (t - total) - y\n        total = t\n": "        total = t\n        lost = (t - total) - "
            "y\n",
        }, r"from the same"),
        Mistake("lets the compiler reorder", {"@jit()": "@jit(fastmath=True)"}, r"the compiler cancels"),
    ),
)  # fmt: skip
