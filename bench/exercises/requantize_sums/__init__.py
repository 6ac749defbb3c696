"""From 32-bit sums back to 8-bit codes, without a float."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial
from ulpgrad.formats import Array, int8
from ulpgrad.kernels.requantize.spec import round_shift


def check(trial: Trial) -> None:
    rng = trial.rng
    judge(trial, rng.integers(-120, 120, (6, 4)), 31, 0, "sums that fit")
    judge(trial, rng.integers(-9000, 9000, (4, 3)), 40, int(rng.integers(10, 40)), "a zero point")
    judge(trial, rng.integers(-(2**31), 2**31, (5, 4)), 54, 0, "sums of full width")
    judge(trial, rng.integers(-(2**20), 2**20, (5, 4)), 38, int(rng.integers(-90, -40)), "sums that do not fit")
    judge(trial, 2 * rng.integers(-20, 20, (6, 2)) + 1, 31, 0, "ties: exactly between two codes", tie=True)


def judge(trial: Trial, x: Array, shift: int, zero_point: int, name: str, *, tie: bool = False) -> None:
    trial.stage(name)
    x = x.astype(np.int32)
    channels = x.shape[1]
    multiplier = trial.rng.integers(2**30, 2**31, channels).astype(np.int32)
    if tie:
        multiplier[:] = 2**30
    shifts = np.full(channels, shift, np.int32) + (
        0 if shift == 31 else trial.rng.integers(0, 2, channels).astype(np.int32)
    )
    got = trial.call("requantize", x, multiplier, shifts, zero_point)
    if isinstance(got, np.ndarray) and got.dtype != np.int8:
        trial.wrong(f"The result is {got.dtype}: expected int8.")
    exact, wide = x.astype(object) * multiplier.astype(object), shifts.astype(object)
    quotient = round_shift(exact, np.broadcast_to(wide, x.shape), "up").astype(np.int64)
    down = np.floor_divide(exact, 1 << wide).astype(np.int64)
    even = round_shift(exact, np.broadcast_to(wide, x.shape), "even").astype(np.int64)
    wrapped = (x.astype(np.int64) * multiplier).astype(np.int32).astype(np.int64)
    params = {"axis": 1, "zero_point": zero_point, "low": -128, "high": 127, "ties": "up", "dtype": int8}
    trial.against("requantize", (x, multiplier, shifts, None), params, got, what="the code", suspects={
        "The product was formed in 32 bits and wrapped: a 32-bit sum times a 31-bit multiplier needs 63. Widen to "
        "int64 first.":
            np.clip((wrapped + (1 << shifts.astype(np.int64) - 1) >> shifts) + zero_point, -128, 127),
        "That rounds down: a shift does. Add half a unit, 1 << (shift - 1), before it.":
            np.clip(down + zero_point, -128, 127),
        "The zero point was added after the limits: the result has to be limited last.":
            (np.clip(quotient, -128, 127) + zero_point).astype(np.int8),
        "What does not fit came round on the other side: limit to -128 and 127 before you narrow.":
            (quotient + zero_point).astype(np.int8),
        "The zero point is missing.": np.clip(quotient, -128, 127),
        "Ties went to the even code; this format's rule is up (it costs hardware nothing: an addition).":
            np.clip(even + zero_point, -128, 127),
    })  # fmt: skip


EXERCISE = Exercise(
    rank=200,
    title="Requantize without floats",
    teaches="A real scale is an integer multiplier and a shift: a 64-bit product, an addition, and the limits last.",
    asks=("requantize",),
    check=check,
    forbids={"float64": "Whole numbers only.", "float32": "Whole numbers only.", "rint": "Whole numbers only.",
             "round": "Whole numbers only.", "/": "Whole numbers only: use a shift."},
    hints=(
        "x has up to 31 bits and a sign, the multiplier 31 bits: `x.astype(np.int64) * multiplier`.",
        "`>> shift` divides by 2^shift and rounds down. To round to nearest, add half of 2^shift first.",
        "`(product + (1 << (shift - 1))) >> shift`, where 1 and shift have 64 bits too: `np.int64(1) << (shift - 1)`.",
        "Then + zero_point, then np.clip to -128 and 127, then .astype(np.int8), in this order.",
    ),
    mistakes=(
        Mistake("multiplies in 32 bits", {"x.astype(np.int64) * multiplier": "(x * multiplier).astype(np.int64)"},
                r"needs 63"),
        Mistake("shifts without rounding", {"product + half >> wide": "product >> wide"}, r"rounds down"),
        Mistake("adds the zero point last", {"np.clip(codes + zero_point, -128, 127)": "(np.clip(codes, -128, 127) + "
                "zero_point)"},
                r"limited last"),
        Mistake("wraps", {"np.clip(codes + zero_point, -128, 127)": "(codes + zero_point)"}, r"on the other side"),
        Mistake("forgets the zero point", {"codes + zero_point": "codes"}, r"zero point is missing"),
    ),
)  # fmt: skip
