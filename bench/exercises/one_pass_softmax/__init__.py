"""Online softmax: the running sum is corrected whenever the running maximum grows."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial
from ulpgrad.formats import Array


def unscaled(x: Array) -> Array:
    """A running sum that is not corrected when the maximum grows."""
    top = np.maximum.accumulate(x, axis=1)
    return np.asarray(np.exp(x - top[:, -1:]) / np.exp(x - top).sum(axis=1, keepdims=True))


def check(trial: Trial) -> None:
    for shape, scale, shift, name in (
        ((3, 5), 1, 0, "small rows"), ((4, 33), 3, 0, "longer rows"), ((2, 17), 1, -900, "rows far below zero"),
        ((2, 17), 30, 90, "rows whose exponentials overflow"), ((2, 1), 1, 0, "rows of one element"),
    ):  # fmt: skip
        trial.stage(name)
        x = (trial.rng.standard_normal(shape) * scale + shift).astype(np.float32)
        y = trial.blank(shape)
        trial.call("softmax", x, y, writes=[1])
        trial.against("softmax", (x,), {"axis": 1}, y, what="y", suspects={
            "The sum was not corrected: terms that were added before a larger maximum came are relative to the old "
            "one. "
            "When the maximum goes from `top` to `new`, multiply the sum so far by exp(top - new).": unscaled(x),
            "Those are the exponentials: they still have to be divided by their sum.":
                np.exp(x - x.max(axis=1, keepdims=True)),
            ("exp(-900) is zero, and zero by zero is not a number: begin with a maximum of -inf, for 0 may be above "
                    "all values."
             if shift < 0 else
             "exp(89) is infinite in float32, and infinity by infinity is not a number: shift every row by its "
             "maximum first."):
                np.exp(x) / np.exp(x).sum(axis=1, keepdims=True),
        })  # fmt: skip
    trial.stage("reads of x")
    x = trial.rng.standard_normal((2, 24)).astype(np.float32)
    reads = trial.trace("softmax", x, trial.blank(x.shape)).count(0)
    if reads.max() > 2:
        trial.wrong(
            f"The result is right, but an element of x is read {reads.max()} times. Two are enough: one sweep that "
            f"keeps the "
            "maximum and the sum together, one that writes y. (x[i, j] twice in a loop is two reads: keep it in a "
            "variable.)"
        )


EXERCISE = Exercise(
    rank=80,
    title="Make this softmax one pass",
    teaches="A sum can be corrected later: maximum and sum in one sweep. Fused attention rests on this.",
    asks=("softmax",),
    check=check,
    requires=("numba",),
    hints=(
        "After j elements keep two numbers: `top`, the largest so far, and `total`, the sum of exp(x - top) over them.",
        "If the next element is not above `top`, only its exp(v - top) is added.",
        "If it is above, every term so far is too large by the same factor: exp(top - v) puts all of them right at "
        "once, and the new term itself is exp(0) = 1.",
        "`total = total * np.exp(top - v) + 1; top = v`. Begin with `top = -np.inf` and `total = 0`.",
    ),
    mistakes=(
        Mistake("does not correct the sum", {"total * np.exp(top - v) + 1": "total + 1"}, r"not corrected"),
        Mistake("begins at zero", {"top = -np.inf": "top = np.float32(0)"}, r"begin with a maximum of -inf"),
        Mistake("sweeps three times", {
            "        for j in range(x.shape[1]):\n            v = x[i, j]\n            if v > top:\n":
            "        for j in range(x.shape[1]):\n            top = max(top, x[i, j])\n"
            "        for j in range(x.shape[1]):\n            v = x[i, j]\n            if v > top:\n",
        }, r"read 3 times"),
        Mistake("leaves out the shift", {"np.exp(x[i, j] - top) / total": "np.exp(x[i, j]) / (total * np.exp(top))"},
                r"nan|infinite"),
        Mistake("does not divide", {"np.exp(x[i, j] - top) / total": "np.exp(x[i, j] - top)"}, r"divided by their sum"),
    ),
)  # fmt: skip
