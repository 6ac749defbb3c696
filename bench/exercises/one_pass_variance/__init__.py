"""Variance in one sweep, without losing it to cancellation."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial
from ulpgrad.formats import Array


def stale(x: Array) -> Array:
    """Welford's recurrence with the old mean on both sides."""
    mean, total = np.zeros(len(x)), np.zeros(len(x))
    for k in range(x.shape[1]):
        delta = x[:, k] - mean
        mean += delta / (k + 1)
        total += delta * delta
    return np.asarray(total / x.shape[1])


def check(trial: Trial) -> None:
    for shape, offset in (((3, 5), 0.0), ((2, 200), 3.0), ((4, 33), 1e9), ((2, 1), 1e9)):
        trial.stage(f"{shape[0]} rows of {shape[1]} values around {offset:g}")
        x = trial.rng.standard_normal(shape) * trial.rng.uniform(1, 3) + offset
        out = trial.blank(shape[0], np.float64)
        trial.call("variance", x, out, writes=[1])
        want = np.var(x - offset, axis=1)
        if shape[1] > 1 and offset > 1e6 and not np.all(np.abs(out - want) <= 0.01 * want):
            worst = int(np.argmax(np.abs(out - want)))
            trial.wrong(
                f"out[{worst}] is {out[worst]:.6g}; right is {want[worst]:.6g}. The values are near {offset:g}, their "
                f"squares near {offset**2:g}, and float64 keeps "
                "16 digits: the mean of the squares and the square of the mean agree in all of them, and their "
                "difference is what rounding left. Sum squares of differences from a running mean instead (Welford)."
            )
        trial.near(out, want, ulps=32, magnitude=np.maximum(np.abs(x).max(axis=1), want), what="out", suspects={
            "That divides by n - 1; this variance is the mean of the squared differences, as normalisation layers use "
            "it: "
            "divide by n.": want * shape[1] / max(1, shape[1] - 1),
            "Both factors use the old mean. One of the two differences has to be taken after the mean has moved.":
                stale(x),
            "Those are sums: divide by n at the end.": want * shape[1],
        })  # fmt: skip
    trial.stage("reads of x")
    x = trial.rng.standard_normal((2, 20))
    reads = trial.trace("variance", x, trial.blank(2, np.float64)).count(0).max()
    if reads > 1:
        trial.wrong(
            f"The variance is right, but each value is read {reads} times. Keep the mean of what has been seen so "
            f"far: then one sweep "
            "is enough."
        )


EXERCISE = Exercise(
    rank=90,
    title="Variance in one pass",
    teaches="mean(x²) - mean(x)² is one sweep and loses every digit; a running mean is one sweep and keeps them.",
    asks=("variance",),
    check=check,
    requires=("numba",),
    forbids={"var": "Write the loop.", "std": "Write the loop.", "mean": "Call it `center`: np.mean is left out here."},
    hints=(
        "Keep `center`, the mean of the values so far, and `squares`, the sum of their squared differences from it.",
        "A new value v, the k-th, moves the mean by (v - center) / k.",
        "`squares` grows by (v - center before) * (v - center after): one factor from each side of the move.",
    ),
    mistakes=(
        Mistake("mean of squares minus square of the mean", {
            "            delta = v - center\n            center += delta / (j + 1)\n            squares += delta * (v "
            "- center)\n":
            "            center += v\n            squares += v * v\n",
            "squares / x.shape[1]": "squares / x.shape[1] - (center / x.shape[1]) ** 2",
        }, r"running mean instead"),
        Mistake("divides by n - 1", {"squares / x.shape[1]": "squares / max(1, x.shape[1] - 1)"}, r"divides by n - 1"),
        Mistake("uses the old mean twice", {"delta * (v - center)": "delta * delta"}, r"old mean"),
        Mistake("does not divide", {"squares / x.shape[1]": "squares"}, r"Those are sums"),
        Mistake("sweeps twice", {
            "        squares = 0.0\n": "        squares = 0.0\n        for j in range(x.shape[1]):\n            "
            "center += 0 * x[i, j]\n",
        }, r"read 2 times"),
    ),
)  # fmt: skip
