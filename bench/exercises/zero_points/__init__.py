"""A product of codes with zero points, by one product of the codes as they are."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial
from ulpgrad.formats import Array


def check(trial: Trial) -> None:
    for m, k, n in ((2, 3, 4), (5, 5, 5), (1, 64, 7), (6, 2, 1)):
        for za, zb, name in ((0, 0, "no zero points"), (int(trial.rng.integers(1, 255)), 0, "a zero point of a"),
                             (0, int(trial.rng.integers(1, 90)), "a zero point of b"),
                             (int(trial.rng.integers(1, 255)), -int(trial.rng.integers(1, 90)), "both")):  # fmt: skip
            trial.stage(f"({m}, {k}) times ({k}, {n}), {name}")
            a = trial.rng.integers(0, 256, (m, k)).astype(np.uint8)
            b = trial.rng.integers(-128, 128, (k, n)).astype(np.int8)
            judge(trial, a, b, za, zb)


def judge(trial: Trial, a: Array, b: Array, za: int, zb: int) -> None:
    calls: list[tuple[Array, Array]] = []

    def product(left: Array, right: Array) -> Array:
        for name, given, dtype in (("first", left, np.uint8), ("second", right, np.int8)):
            if not isinstance(given, np.ndarray) or given.dtype != dtype:
                got = getattr(given, "dtype", type(given).__name__)
                trial.wrong(
                    f"`product` takes uint8 and int8 codes as they are: the integer unit knows nothing else. Its "
                    f"{name} operand was {got}. a - za needs 9 bits and does not fit; take the zero points out of the "
                    f"result instead."
                )
        calls.append((left, right))
        return np.asarray(np.matmul(left.astype(np.int32), right.astype(np.int32)))

    got = trial.call("affine_matmul", a, b, za, zb, product)
    if not calls:
        trial.wrong("`product` was never called: the product of the codes is to run on the integer unit.")
    x, y, k = a.astype(np.int64), b.astype(np.int64), a.shape[1]
    raw, rows, columns = x @ y, x.sum(1, keepdims=True), y.sum(0, keepdims=True)
    trial.same(got, (x - za) @ (y - zb), what="the result", suspects={
        "The product of the zero points is missing: it comes once for each of the k terms, + k za zb.":
            raw - zb * rows - za * columns,
        "The product of the zero points comes with each of the k terms: k za zb, not za zb.":
            raw - zb * rows - za * columns + za * zb,
        "Each zero point goes with the other operand's sums: za with the sums of b's columns, zb with those of a's "
        "rows.":
            raw - za * rows - zb * columns + k * za * zb,
        "That is the product of the raw codes: the zero points still have to come out of it.": raw,
        "The sign of the last term is wrong: minus times minus is plus.": raw - zb * rows - za * columns - k * za * zb,
        "The product of the zero points should be added only: sums of rows and columns are missing.": raw + k * za * zb,
    })  # fmt: skip
    if len(calls) > 1:
        trial.wrong(
            f"`product` was called {len(calls)} times; once is enough. Sums of rows and columns are cheap beside it."
        )


EXERCISE = Exercise(
    rank=190,
    title="Zero points",
    teaches="Zero points come out of the result as sums of rows and columns: the big product stays one of small "
            "integers.",
    asks=("affine_matmul",),
    check=check,
    forbids={"@": "Use `product`.", "matmul": "Use `product`.", "dot": "Use `product`.", "einsum": "Use `product`."},
    hints=(
        "Multiply (a - za) (b - zb) out, for one term of the sum over k: four products.",
        "Summed over k: a b, which is `product`; zb times the sum of a's row; za times the sum of b's column; and za "
        "zb, k times.",
        "Sum in a wide type: `a.sum(axis=1, keepdims=True, dtype=np.int64)` is one number for each row of the result.",
        "`product(a, b) - zb * rows - za * columns + k * za * zb`, with rows of shape (m, 1) and columns of shape (1, "
        "n).",
    ),
    mistakes=(
        Mistake("forgets the constant", {" + k * za * zb": ""}, r"k za zb"),
        Mistake("counts the constant once", {"k * za * zb": "za * zb"}, r"not za zb"),
        Mistake("exchanges the zero points", {"zb * rows - za * columns": "za * rows - zb * columns"},
                r"other operand's sums"),
        Mistake("widens the operands", {"    rows =": "    return product(a.astype(np.int32) - za, b.astype(np.int32) "
                "- zb)\n    rows ="},
                r"needs 9 bits"),
        Mistake("leaves the unit unused", {"    rows =": "    x, y = a.astype(np.int64) - za, b.astype(np.int64) - zb\n"
                "    return (x[:, :, None] * y[None]).sum(1)\n    rows ="}, r"never called"),
        Mistake("a sign", {"+ k * za * zb": "- k * za * zb"}, r"minus times minus"),
    ),
)  # fmt: skip
