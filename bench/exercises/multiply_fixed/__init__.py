"""A product of two Q7.8 numbers, as hardware does it."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial
from ulpgrad.formats import Array, Q

FORM = Q(7, 8)


def check(trial: Trial) -> None:
    rng = trial.rng
    small = rng.integers(-2000, 2000, (2, 60)).astype(np.int16)
    judge(trial, small[0], small[1], "products that fit")
    odd = ((2 * rng.integers(-50, 50, (2, 40)) + 1) * np.array([[8], [16]])).astype(np.int16)
    judge(trial, odd[0], odd[1], "ties: exactly between two codes")
    large = rng.integers(-(2**15), 2**15, (2, 60)).astype(np.int16)
    judge(trial, large[0], large[1], "products that do not fit")
    judge(trial, np.array([-(2**15)] * 3, np.int16), np.append(rng.integers(1, 2**15, 2), -(2**15)).astype(np.int16),
          "the most negative code")  # fmt: skip


def judge(trial: Trial, a: Array, b: Array, name: str) -> None:
    trial.stage(name)
    got = trial.call("multiply", a, b)
    if isinstance(got, np.ndarray) and got.dtype != np.int16:
        trial.wrong(f"The result is {got.dtype}: Q7.8 is stored in int16.")
    product = a.astype(np.int64) * b.astype(np.int64)
    even = np.rint(product / 256).astype(np.int64)
    limit = 2**15 - 1
    with np.errstate(over="ignore"):
        narrow = a * b
    trial.same(got, FORM.encode(FORM.exact(a) * FORM.exact(b)), what="the code", suspects={
        "The product was formed in 16 bits, and its upper half is gone: a product of two 16-bit codes has 32 bits. "
        "Widen the "
        "operands first.": np.clip(np.rint(narrow.astype(np.int64) / 256), -limit - 1, limit),
        "That rounds down (a shift does): on average half a step is lost. Round to the nearest code, ties to even.":
            np.clip(product >> 8, -limit - 1, limit),
        "Exactly in the middle you always go up; ties go to the even code.":
            np.clip(product + 128 >> 8, -limit - 1, limit),
        "That cuts off toward zero; round to the nearest code, ties to even.":
            np.clip(np.trunc(product / 256), -limit - 1, limit),
        "Products beyond the ends came round on the other side: 127 * 2 became a negative number. Limit to -32768 and "
        "32767 "
        "before you narrow to int16.": even.astype(np.int16),
        "The product of two numbers with 8 bits after the point has 16 of them: shift it back by 8.":
            product.astype(np.int16),
        "A product of two codes has 16 bits after the point: divided by 256 it is a code of Q7.8 again.":
            np.clip(product, -limit - 1, limit),
    })  # fmt: skip


EXERCISE = Exercise(
    rank=150,
    title="Multiply in fixed point",
    teaches="Widen, multiply, round, saturate, narrow: each in its place, or the result is quietly wrong.",
    asks=("multiply",),
    check=check,
    hints=(
        "A code c means c / 256. The product of two codes means (a b) / 65536: to be a code of Q7.8 again, it has to "
        "be divided by 256.",
        "int16 times int16 needs 32 bits: `a.astype(np.int32) * b`.",
        "`>> 8` rounds down. `np.rint(product / 256)` rounds to nearest, ties to even, and float64 holds the product "
        "exactly.",
        "Last, `np.clip(..., -32768, 32767).astype(np.int16)`: clip first, narrow after.",
    ),
    mistakes=(
        Mistake("multiplies in 16 bits", {"a.astype(np.int32) * b": "(a * b).astype(np.int32)"}, r"formed in 16 bits"),
        Mistake("shifts", {"np.rint(product / 256)": "(product >> 8)"}, r"rounds down"),
        Mistake("ties up", {"np.rint(product / 256)": "(product + 128 >> 8)"}, r"always go up"),
        Mistake("wraps", {"np.clip(codes, -32768, 32767)": "codes.astype(np.int32)"}, r"on the other side"),
        Mistake("forgets the point", {"np.rint(product / 256)": "product"}, r"[Dd]ivided by 256"),
    ),
)  # fmt: skip
