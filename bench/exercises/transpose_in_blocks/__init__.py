"""A transpose cannot walk along the rows of both matrices; blocks can."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Race, Trial

LINE, LINES = 16, 48


def check(trial: Trial) -> None:
    for shape in ((16, 16), (5, 7), (33, 20), (1, 9), (40, 3)):
        trial.stage(f"{shape[0]} x {shape[1]}")
        x = trial.rng.standard_normal(shape).astype(np.float32)
        y = trial.blank(shape[::-1])
        trial.call("transpose", x, y, writes=[1])
        trial.same(y, x.T, what="y", suspects={
            "y holds x, copied in its order: element (i, j) belongs to y[j, i].": x.reshape(y.shape),
        })  # fmt: skip
    trial.stage("misses of the cache")
    x = trial.rng.standard_normal((64, 64)).astype(np.float32)
    run = trial.trace("transpose", x, trial.blank(x.shape))
    needed, missed = 2 * x.size // LINE, run.misses(lines=LINES, line=LINE)
    if missed > 2 * needed:
        trial.wrong(
            f"Every element is where it belongs, but a cache of {LINES} lines of {LINE} values missed {missed} times; "
            f"{needed} is the least, and {2 * needed} are allowed here. A block of b x b values needs b lines of x "
            f"and b of y at the same time: they must fit together ({LINES} lines), and b should use whole lines "
            f"({LINE} values)."
        )


def against_the_given(answer: ModuleType, rng: np.random.Generator) -> Mapping[str, Callable[[], Any]]:
    from ulpgrad.bench.exercises.transpose_in_blocks import stub

    x = rng.standard_normal((2048, 2048)).astype(np.float32)
    y = np.empty_like(x)
    return {"yours": lambda: answer.transpose(x, y), "the kernel that was given": lambda: stub.transpose(x, y)}


EXERCISE = Exercise(
    rank=40,
    title="Transpose in blocks",
    teaches="Where two walks are at odds, a block small enough for the cache serves both.",
    asks=("transpose",),
    check=check,
    requires=("numba",),
    forbids={"T": "Write the loops.", "copyto": "Write the loops."},
    hints=(
        "Reading x along its rows writes y down its columns: a line of y for each single value.",
        "Cut x into blocks of 16 x 16. Inside a block it does not matter which way one goes: its lines all stay in "
        "the cache.",
        "Four loops: `for i0 in range(0, m, 16)`, `for j0 in range(0, n, 16)`, then i and j inside the block.",
        "At the edges a block is smaller: `for i in range(i0, min(i0 + 16, m))`.",
    ),
    mistakes=(
        Mistake("whole blocks only", {"range(0, m, BLOCK)": "range(0, m // BLOCK * BLOCK, BLOCK)"},
                r"never written|nothing was"),
        Mistake("runs over the edge", {"min(j0 + BLOCK, n)": "j0 + BLOCK"}, r"IndexError"),
        Mistake("blocks as large as the matrix", {"BLOCK = 16": "BLOCK = 64"}, r"b lines of x and b of y"),
        Mistake("copies without turning", {"y[j, i] = x[i, j]": "y.ravel()[i * n + j] = x[i, j]"}, r"copied in its "
                r"order"),
    ),
    race=Race(against_the_given, "faster than the kernel that was given, on 2048 x 2048 values"),
)  # fmt: skip
