"""The first Triton kernel: programs, blocks and masks."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial


def check(trial: Trial) -> None:
    for n in (64, 256, 1, 63, 65, 200):
        trial.stage(f"{n} elements")
        a = float(trial.rng.uniform(1, 3))
        x, y = (trial.fenced(v) for v in trial.rng.standard_normal((2, n)).astype(np.float32))
        out = trial.fenced(trial.blank(n))
        trial.call("axpy", a, x, y, out, writes=[3])
        exact = a * x.astype(np.float64)
        trial.near(out, exact + y, ulps=2, magnitude=np.abs(exact) + np.abs(y), what="out", suspects={
            "The factor a is missing.": x + y, "y is missing.": exact,
        })  # fmt: skip


EXERCISE = Exercise(
    rank=270,
    title="Masks: a first Triton kernel",
    teaches="A program handles a block of elements at once; the last block is masked.",
    asks=("axpy",),
    check=check,
    requires=("triton",),
    hints=(
        "`tl.program_id(0)` says which program this is. Program p handles elements p * BLOCK to (p + 1) * BLOCK - 1: "
        "all of them at once, as the vector `p * BLOCK + tl.arange(0, BLOCK)`.",
        "There have to be enough programs: `triton.cdiv(n, BLOCK)` rounds up.",
        "The last block sticks out. `mask=i < n` in tl.load and in tl.store leaves out what does not exist.",
    ),
    mistakes=(
        Mistake("stores without a mask", {"+ tl.load(y + i, mask=i < n), mask=i < n)": "+ tl.load(y + i, mask=i < n))"},
                r"wrote to memory behind"),
        Mistake("rounds the grid down", {"triton.cdiv(len(x), BLOCK)": "max(1, len(x) // BLOCK)"}, r"never written"),
        Mistake("all programs do the same block", {"tl.program_id(0) * BLOCK + ": ""}, r"never written"),
        Mistake("forgets the factor", {"a * tl.load(x": "tl.load(x"}, r"factor a is missing"),
    ),
)  # fmt: skip
