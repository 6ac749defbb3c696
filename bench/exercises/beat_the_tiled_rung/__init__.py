"""The free exercise: a matmul in Numba, against the ladder's tiled rung."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Race, Trial

SIZE = 768


def check(trial: Trial) -> None:
    for m, k, n in ((8, 8, 8), (12, 42, 9), (4, 20, 33), (70, 9, 35), (5, 3, 7), (1, 1, 1)):
        trial.stage(f"({m}, {k}) times ({k}, {n})")
        a = trial.rng.standard_normal((m, k)).astype(np.float32)
        b = trial.rng.standard_normal((k, n)).astype(np.float32)
        c = trial.blank((m, n))
        trial.call("multiply", a, b, c, writes=[2])
        row = np.arange(m)[:, None]
        trial.against("matmul", (a, b), {}, c, what="c", suspects={
            **{f"The last {m % r} of {m} rows are missing: what is no multiple of {r} needs a loop of its own.":
                np.where(row < m // r * r, np.matmul(a, b), 0) for r in (2, 4, 8, 16, 32) if m % r},
            **{f"The last {k % s} of {k} steps of k are missing: what is no multiple of {s} needs a loop of its own.":
                np.matmul(a[:, : k // s * s], b[: k // s * s]) for s in (2, 4, 8) if k % s},
        })  # fmt: skip
    trial.stage("who writes what")
    a, b = trial.rng.standard_normal((2, 12, 12)).astype(np.float32)
    for array, element, one, other in trial.trace("multiply", a, b, trial.blank(a.shape)).races():
        trial.wrong(
            f"{'abc'[array]}[{element // 12}, {element % 12}] is written by iterations {one} and {other} of prange, "
            f"which may run at the "
            "same moment: additions are lost. Let threads share out rows (or columns) of c, never steps of k."
        )


def against_the_rung(answer: ModuleType, rng: np.random.Generator) -> Mapping[str, Callable[[], Any]]:
    from ulpgrad.kernels.matmul import numba_parallel, numba_tiled

    a, b = rng.standard_normal((2, SIZE, SIZE)).astype(np.float32)
    c = np.empty_like(a)
    return {
        "yours": lambda: answer.multiply(a, b, c),
        "the tiled rung": lambda: numba_tiled.matmul(a, b),
        "the next rung, numba-parallel": lambda: numba_parallel.matmul(a, b),
    }


EXERCISE = Exercise(
    rank=310,
    title="Beat the tiled rung",
    teaches="Blocks for the cache, rows that share their loads, threads: one idea after the other, each measured.",
    asks=("multiply",),
    check=check,
    requires=("numba",),
    forbids={"@": "Write the loops.", "dot": "Write the loops.", "matmul": "Write the loops.", "einsum": "Write the "
            "loops.",
             "numba_tiled": "Write your own.", "numba_parallel": "Write your own."},
    hints=(
        "`ulpgrad ladder matmul` shows what each idea brought; kernels/matmul/numba_tiled.py is the one to beat. What "
        "does its text say limits it?",
        "Several rows of a at a time: a value of b that is loaded once then serves four rows of c. `c0, c1, c2, c3 = "
        "c[i, j0:j1], ...` gives the rows names; slices of one axis are known to be contiguous.",
        "Several steps of k at a time: c is loaded and stored once for four multiply-adds instead of for one.",
        "Write `c0[j] = (((c0[j] + a00 * v0) + a01 * v1) + a02 * v2) + a03 * v3`: with fastmath={'contract'} each of "
        "the four becomes one fused multiply-add. Products that are summed among themselves first do not.",
        "Threads: prange over groups of rows. No two of them share an element of c.",
    ),
    mistakes=(
        Mistake("shares out the steps of k", {
            "    for task in prange((m + ROWS - 1) // ROWS):\n        first, last = task * ROWS, min(m, task * ROWS + "
            "ROWS)\n        for p0 in range(0, k, STEPS):\n":
            "    for task in prange((k + STEPS - 1) // STEPS):\n        first, last, p0 = 0, m, task * STEPS\n        "
            "if True:\n",
            "    c[:, :] = 0\n": "    c[:, :] = 0\n    ROWS, STEPS = 4, 4\n",
        }, r"never steps of k"),
        Mistake("whole steps of four only", {"            one_step(a, b, c, row, p, j0, j1)": "            pass"},
                r"needs a loop of its own"),
        Mistake("does not begin at zero", {"    c[:, :] = 0\n": ""}, r"set to zero first"),
        Mistake("leaves the last rows", {"for i in range(whole, last):": "for i in range(last, last):"}, r"all of it "
                r"is zero|right is"),
    ),
    race=Race(against_the_rung, f"faster than the tiled rung on {SIZE} x {SIZE} float32 values; near the next rung is "
            f"very good"),
)  # fmt: skip
