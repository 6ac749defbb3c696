"""The first kernel: one loop, every element."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial


def check(trial: Trial) -> None:
    for n in (1, 7, 64, 1001):
        trial.stage(f"{n} elements")
        x, y = trial.rng.standard_normal((2, n)).astype(np.float32)
        out = trial.blank(n)
        trial.call("add", x, y, out, writes=[2])
        trial.against("add", (x, y), {}, out, what="out", suspects={
            "That is x alone: y has to be added.": x,
            "Those are products: the task is a sum.": x * y,
        })  # fmt: skip
    trial.stage("no elements at all")
    empty = np.zeros(0, np.float32)
    trial.call("add", empty, empty, empty)


EXERCISE = Exercise(
    rank=10,
    title="Add two vectors",
    teaches="A kernel is a loop over memory; it writes into memory that it is given.",
    asks=("add",),
    check=check,
    requires=("numba",),
    hints=(
        "A compiled kernel returns nothing: it fills `out`. `len(x)` is the number of elements.",
        "`for i in range(len(x)):` visits every element; the body sets one element of `out`.",
        "`out[i] = x[i] + y[i]`.",
    ),
    mistakes=(
        Mistake("stops one early", {"range(len(x))": "range(len(x) - 1)"}, r"never written|nothing was written"),
        Mistake("adds into x", {"out[i] = x[i] + y[i]": "x[i] += y[i]\n        out[i] = x[i]"}, r"changed its operand "
                r"number 1"),
        Mistake("handles only whole groups of four", {"range(len(x))": "range(len(x) // 4 * 4)"},
                r"never written|nothing was"),
        Mistake("runs past the end", {"range(len(x))": "range(len(x) + 1)"}, r"IndexError|size"),
    ),
)  # fmt: skip
