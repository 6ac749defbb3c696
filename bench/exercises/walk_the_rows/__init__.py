"""The order of two loops, as memory sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Race, Trial

LINE, LINES = 16, 16  # a cache line holds 16 float32 values; the simulated cache 16 lines


def check(trial: Trial) -> None:
    for shape in ((3, 5), (17, 4), (1, 9), (6, 1)):
        trial.stage(f"{shape[0]} rows of {shape[1]}")
        x = trial.rng.standard_normal(shape).astype(np.float32)
        out = trial.blank(shape[1])
        trial.call("column_sums", x, out, writes=[1])
        trial.against("sum", (x,), {"axis": (0,), "keepdims": False}, out, what="out", suspects={
            "The last row is missing.": x[:-1].sum(0),
            "That is the last row alone: rows replace each other where they should add up.": x[-1],
        })  # fmt: skip
    trial.stage("misses of the cache")
    x = trial.rng.standard_normal((32, 64)).astype(np.float32)
    run = trial.trace("column_sums", x, trial.blank(64))
    needed, missed = (x.size + 64) // LINE, run.misses(lines=LINES, line=LINE)
    if missed > 2 * needed:
        trial.wrong(
            f"The sums are right, but of {x.size} reads of x nearly all go to memory: a cache of {LINES} lines of "
            f"{LINE} values missed {missed} times, {needed} would do. Going down a column takes one value of each "
            f"line, and the line is "
            "gone before its next value is wanted. Let the inner loop run along a row."
        )


def against_the_given(answer: ModuleType, rng: np.random.Generator) -> Mapping[str, Callable[[], Any]]:
    from ulpgrad.bench.exercises.walk_the_rows import stub

    x, out = rng.standard_normal((2000, 2000)).astype(np.float32), np.empty(2000, np.float32)
    return {"yours": lambda: answer.column_sums(x, out), "the kernel that was given": lambda: stub.column_sums(x, out)}


EXERCISE = Exercise(
    rank=20,
    title="Walk along the rows",
    teaches="Memory comes in lines of 64 bytes: use all of a line while it is there.",
    asks=("column_sums",),
    check=check,
    requires=("numba",),
    forbids={"sum": "Write the loops: their order is what this is about."},
    hints=(
        "x[i, j] and x[i, j + 1] lie side by side; x[i, j] and x[i + 1, j] lie a whole row apart.",
        "Exchange the two loops. A single `total` is then not enough: every column needs one, and `out` has room for "
        "them.",
        "First a loop that sets out[j] = 0; then `for i`, and inside it `for j: out[j] += x[i, j]`.",
    ),
    mistakes=(
        Mistake("does not begin at zero", {"out[j] = 0": "pass"}, r"set to zero first"),
        Mistake("leaves out the last row", {"range(x.shape[0])": "range(x.shape[0] - 1)"}, r"last row is missing|is 0"),
        Mistake("replaces instead of adding", {"out[j] += x[i, j]": "out[j] = x[i, j]"}, r"last row alone"),
        Mistake("still goes down the columns", {
            "    for i in range(x.shape[0]):\n        for j in range(x.shape[1]):\n":
            "    for j in range(x.shape[1]):\n        for i in range(x.shape[0]):\n",
        }, r"down a column"),
    ),
    race=Race(against_the_given, "many times as fast as the kernel that was given, on 2000 x 2000 values"),
)  # fmt: skip
