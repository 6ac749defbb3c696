"""4-bit floats that share a power of two: the microscaling formats."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial
from ulpgrad.errors import FormatError
from ulpgrad.formats import Array, as_format

BLOCK, SMALL = as_format("mxfp4_e2m1"), as_format("float4_e2m1fn")


def rounded(x: Array, exponent: Array) -> Array:
    scale = 2.0**exponent
    return np.asarray(SMALL.exact(SMALL.encode(x / scale, overflow="saturate")) * scale)


def check(trial: Trial) -> None:
    for shape, spread, name in (
        ((9, 32), 12.0, "blocks of very different sizes"), ((3, 32), 0.0, "blocks of like size"), ((1, 32), 3.0, "one block"),
    ):  # fmt: skip
        x = trial.rng.standard_normal(shape) * 2.0 ** trial.rng.uniform(-spread, spread, (shape[0], 1))
        judge(trial, x, name)
    x = trial.rng.uniform(-1, 1, (2, 32))
    x[0, trial.rng.integers(32)] = 2.0 ** trial.rng.integers(2, 6) * 1.9
    judge(trial, x, "an outlier: what is beyond the largest code saturates")
    x[1] = 0
    judge(trial, x, "a block of zeros")


def judge(trial: Trial, x: Array, name: str) -> None:
    trial.stage(name)
    largest = np.max(np.abs(x), axis=1, keepdims=True)
    exponent = np.floor(np.log2(largest, where=largest > 0, out=np.zeros_like(largest)))
    whole = np.broadcast_to(np.floor(np.log2(np.abs(x).max())), exponent.shape)
    try:
        got = trial.call("block_round", x)
    except FormatError:  # to_e2m1 of NaN
        if largest.all():
            raise
        trial.wrong(
            "A block of zeros became NaN: the logarithm of 0 is -inf, and 0 / 0 follows. Any scale is right there; 1 "
            "does."
        )
    trial.same(got, BLOCK.exact(BLOCK.encode(x)), what="the result", suspects={
        "All blocks share one scale here, so that small blocks drown. Each row is a block of its own: axis=1, "
        "keepdims=True.":
            rounded(x, whole - 2),
        "The scale brings the largest value of a block to between 1 and 2, but E2M1 reaches up to 6, and its largest "
        "power of two is 4: its exponent is 2. Take 2 from the exponent of the scale, or half of the codes are never "
        "used.":
            rounded(x, exponent),
        "Rounding the exponent up, no value saturates, but most blocks lose a bit: the format's rule is floor.":
            rounded(x, np.ceil(np.log2(np.where(largest > 0, largest, 1))) - 2),
        "Rounding the exponent to nearest is not the format's rule: floor.":
            rounded(x, np.rint(np.log2(np.where(largest > 0, largest, 1))) - 2),
    })  # fmt: skip


EXERCISE = Exercise(
    rank=160,
    title="Block scales",
    teaches="One shared power of two per 32 values lets 4 bits cover any range: MXFP4.",
    asks=("block_round",),
    check=check,
    forbids={"mxfp4_e2m1": "Find the scales yourself.", "Block": "Find the scales yourself.", "to": "Find the scales "
            "yourself."},
    hints=(
        "One scale for each row: from its largest magnitude, `np.abs(x).max(axis=1, keepdims=True)`.",
        "floor(log2(largest)) is the exponent of the largest value. The scale should bring it to the largest exponent "
        "that E2M1 has.",
        "E2M1's codes reach to 6 = 1.5 * 2^2. So the exponent of the scale is floor(log2(largest)) - 2, and "
        "`to_e2m1(x / scale) * scale` is the result.",
        "A row of zeros has no logarithm: put 1 in place of its largest value.",
    ),
    mistakes=(
        Mistake("forgets the element's own range", {") - 2": ")"}, r"reaches up to 6"),
        Mistake("rounds the exponent up", {"np.floor(np.log2": "np.ceil(np.log2"}, r"Rounding the exponent up"),
        Mistake("one scale for all", {"np.abs(x).max(axis=1, keepdims=True)": "np.abs(x).max(keepdims=True)"},
                r"small blocks drown"),
        Mistake("zeros become NaN", {"np.where(largest > 0, largest, 1)": "largest"}, r"block of zeros became NaN"),
        Mistake("rounds the exponent", {"np.floor(np.log2": "np.rint(np.log2"}, r"to nearest is not|up, no value "
                r"saturates"),
    ),
)  # fmt: skip
