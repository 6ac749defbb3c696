"""Softmax in Triton: one program per row."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial


def check(trial: Trial) -> None:
    for rows, n, shift in ((3, 16, 0), (4, 10, 0), (2, 33, 0), (3, 7, -200), (2, 20, 90), (1, 1, 0)):
        trial.stage(f"{rows} rows of {n}" + (f" around {shift}" if shift else ""))
        x = trial.fenced((trial.rng.standard_normal((rows, n)) * 3 + shift).astype(np.float32))
        y = trial.fenced(trial.blank((rows, n)))
        trial.call("softmax", x, y, writes=[1])
        power = 1 << (n - 1).bit_length()
        filled = np.concatenate([x, np.zeros((rows, power - n), np.float32)], axis=1)
        wide = np.exp(filled - filled.max(axis=1, keepdims=True))
        flat = np.concatenate([x.ravel(), np.full(rows * power, np.nan, np.float32)])
        skewed = flat[power * np.arange(rows)[:, None] + np.arange(n)]
        skewed = np.exp(skewed - skewed.max(axis=1, keepdims=True))
        trial.against("softmax", (x,), {"axis": 1}, y, what="y", suspects={
            "Masked elements were loaded as 0, and exp(0 - max) of them is in the sum: load them as -inf, "
            "other=float('-inf').":
                (wide / wide.sum(axis=1, keepdims=True))[:, :n],
            "The row is not shifted by its maximum: exp(89) is infinite in float32, and exp(-200) zero.":
                np.exp(x) / np.exp(x).sum(axis=1, keepdims=True),
            "Row r begins at r * n. The block is longer than the row, and BLOCK is no distance in memory.":
                skewed / skewed.sum(axis=1, keepdims=True),
            "Those are the exponentials; divide by their sum.": np.exp(x - x.max(axis=1, keepdims=True)),
        })  # fmt: skip


EXERCISE = Exercise(
    rank=280,
    title="Softmax in Triton",
    teaches="What a masked load puts in place of nothing matters: -inf for a maximum, 0 for a sum.",
    asks=("softmax",),
    check=check,
    requires=("triton",),
    hints=(
        "`row = tl.program_id(0)`: its elements lie at x + row * n + (0 ... n - 1).",
        "BLOCK is a power of two, at least n: `triton.next_power_of_2(n)`. Columns from n on are masked.",
        "A masked element must change neither the maximum nor the sum: as -inf it is never the largest, and exp makes "
        "it 0.",
        "`tl.max(v, axis=0)` and `tl.sum(e, axis=0)` give one number for the block.",
    ),
    mistakes=(
        Mistake("loads zeros where nothing is", {"other=float(\"-inf\")": "other=0.0"}, r"other=float"),
        Mistake("rows of BLOCK elements", {"x + row * n": "x + row * BLOCK"}, r"no distance in memory"),
        Mistake("does not shift", {"tl.exp(v - tl.max(v, axis=0))": "tl.exp(v)"}, r"not shifted by its maximum"),
        Mistake("does not divide", {"e / tl.sum(e, axis=0)": "e"}, r"divide by their sum"),
        Mistake("stores without a mask", {", e / tl.sum(e, axis=0), mask=j < n)": ", e / tl.sum(e, axis=0))"},
                r"wrote to memory behind"),
    ),
)  # fmt: skip
