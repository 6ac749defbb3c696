"""Rounding to nearest even with integer arithmetic on the bits."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial
from ulpgrad.formats import Array, bfloat16


def check(trial: Trial) -> None:
    rng = trial.rng
    judge(trial, rng.standard_normal(100).astype(np.float32).view(np.uint32), "ordinary values")
    high = rng.integers(0x3000, 0x4F00, 64, dtype=np.uint32) << 16
    judge(trial, high | 0x8000, "ties: exactly between two codes")
    judge(trial, high | rng.integers(0x8001, 0x10000, 64, dtype=np.uint32), "above the middle")
    judge(trial, np.array([0x7F7FFFFF, 0x7F7F8000, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0, 0x80000000, 1, 0x8001], np.uint32)
          [rng.permutation(9)], "the ends: largest values, infinities, zeros, subnormals")  # fmt: skip
    trial.stage("NaN")
    nan = np.append(rng.integers(0x7F800001, 0x7F80FFFF, 8, dtype=np.uint32), np.uint32(0x7FFFFFFF))
    codes = trial.call("round_bits", nan)
    lost = ~np.isnan(bfloat16.exact(np.asarray(codes).astype(np.uint16)))
    if lost.any():
        at = int(np.argmax(lost))
        trial.wrong(
            f"The NaN {nan[at]:#010x} became {int(codes[at]):#06x}, which is "
            f"{bfloat16.exact(codes.astype(np.uint16))[at]}. What makes it "
            "a NaN stands in the lower half, which is cut off (or an addition carried it over the top): set a bit of "
            "the mantissa that remains."
        )


def judge(trial: Trial, bits: Array, name: str) -> None:
    trial.stage(name)
    codes = trial.call("round_bits", bits)
    if isinstance(codes, np.ndarray) and codes.dtype != np.uint16:
        trial.wrong(f"The result is {codes.dtype}: expected uint16, the upper half of the bits: .astype(np.uint16)")
    with np.errstate(over="ignore"):
        wide = bits.astype(np.uint64)
        trial.same(codes, bfloat16.encode(bits.view(np.float32).astype(np.float64)), what="the code", suspects={
            "Exactly in the middle you always go up. Ties go to the even code: add 0x7fff and the last bit that "
            "stays, instead of "
            "0x8000.": (wide + 0x8000 >> 16).astype(np.uint16),
            "Exactly in the middle you always go down. Ties go to the even code: add 0x7fff and the last bit that "
            "stays.":
                (wide + 0x7FFF >> 16).astype(np.uint16),
            "That cuts the lower half off: values come out too small, half a step on average. Add before you cut.":
                (bits >> 16).astype(np.uint16),
        })  # fmt: skip


EXERCISE = Exercise(
    rank=120,
    title="Round to bfloat16",
    teaches="Floats of one sign are ordered like their bits: rounding is an addition, and a carry raises the exponent.",
    asks=("round_bits",),
    check=check,
    forbids={"bfloat16": "Work on the bits.", "ml_dtypes": "Work on the bits.", "encode": "Work on the bits."},
    hints=(
        "bfloat16 is the upper half of float32. Cutting the lower half off rounds toward zero: how does one round to "
        "nearest?",
        "Adding 0x8000 before the cut rounds up from the middle on. A carry out of the mantissa lands in the "
        "exponent, which is right: 1.111 rounds to 10.00.",
        "Exactly in the middle, the even code is wanted. Add 0x7fff plus the last bit that stays, `bits >> 16 & 1`: a "
        "tie then carries only where that bit is 1.",
        "NaN last: where `bits & 0x7fffffff > 0x7f800000`, return `bits >> 16 | 0x40`.",
    ),
    mistakes=(
        Mistake("cuts off", {"bits + np.uint32(0x7FFF) + (bits >> 16 & 1)": "bits"}, r"too small, half a step"),
        Mistake("ties away from zero", {"np.uint32(0x7FFF) + (bits >> 16 & 1)": "np.uint32(0x8000)"}, r"always go up"),
        Mistake("ties toward zero", {" + (bits >> 16 & 1)": ""}, r"always go down"),
        Mistake("forgets NaN", {"np.where(is_nan, bits >> 16 | 0x40, rounded >> 16)": "(rounded >> 16)"},
                r"The NaN 0x7f"),
        Mistake("keeps 32 bits", {".astype(np.uint16)": ""}, r"expected uint16"),
    ),
)  # fmt: skip
