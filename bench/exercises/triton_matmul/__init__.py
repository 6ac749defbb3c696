"""A tile of a product, in Triton."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial


def check(trial: Trial) -> None:
    for m, k, n in ((16, 16, 16), (32, 48, 16), (16, 32, 48), (20, 16, 16), (16, 16, 25), (16, 37, 16), (33, 50, 7)):
        trial.stage(f"({m}, {k}) times ({k}, {n})")
        a = trial.fenced(trial.rng.standard_normal((m, k)).astype(np.float16))
        b = trial.fenced(trial.rng.standard_normal((k, n)).astype(np.float16))
        c = trial.fenced(trial.blank((m, n)))
        trial.call("multiply", a, b, c, writes=[2])
        wide = a.astype(np.float64), b.astype(np.float64)
        want = np.matmul(*wide)
        narrow = sum(np.matmul(a[:, p : p + 16], b[p : p + 16]).astype(np.float64) for p in range(0, k, 16))
        first, last = (
            np.matmul(wide[0][:, :16], wide[1][:16]),
            np.matmul(wide[0][:, (k - 1) // 16 * 16 :], wide[1][(k - 1) // 16 * 16 :]),
        )
        if got_nan := bool(np.isnan(c).any() and np.isfinite(want).all()):
            trial.stage(f"({m}, {k}) times ({k}, {n}), what lies beyond the edges")
        trial.near(c, want, ulps=8, magnitude=np.matmul(np.abs(wide[0]), np.abs(wide[1])), what="c" if not got_nan else
                   "c (NaN stands beyond the edges of a and b: a masked load needs other=0.0, also along k)", suspects={
            "That is rounded to float16 in between: operands may be narrow, the accumulator is float32.": narrow,
            "That is the first block of k only: the loop has to move on, k + p.": first,
            "That is the last block of k only: add to the accumulator.": last,
            f"The first block of k was used {-(-k // 16)} times: the pointers have to move with k.": first * -(-k // 16),
        })  # fmt: skip


EXERCISE = Exercise(
    rank=290,
    title="A matmul tile in Triton",
    teaches="A program owns a tile of c, walks along k, and keeps a wide accumulator in registers.",
    asks=("multiply",),
    check=check,
    requires=("triton",),
    hints=(
        "Offsets of a tile are a column plus a row: `i[:, None] * k + p[None, :]` has shape (BM, BK).",
        "A loop over k, `for k0 in range(0, K, BK)`: load a tile of a and one of b, and `acc += tl.dot(left, right)`.",
        "K is not a multiple of BK: mask with `k0 + p < K`, and load 0 there, since it is multiplied and added.",
        "`tl.zeros((BM, BN), dtype=tl.float32)` is the accumulator. `tl.dot` of float16 tiles gives float32.",
    ),
    mistakes=(
        Mistake("does not mask along k", {"(i < m)[:, None] & (p < K)[None, :]": "(i < m)[:, None]", "(p < K)[:, "
                "None] & (j < n)[None, :]":
                "(j < n)[None, :]"}, r"also along k"),
        Mistake("stays at the first block", {"p = k0 + tl.arange(0, BK)": "p = tl.arange(0, BK)"}, r"have to move "
                r"with k|used 1 times"),
        Mistake("replaces the accumulator", {"acc += tl.dot": "acc = tl.dot"}, r"add to the accumulator"),
        Mistake("accumulates in float16", {"dtype=tl.float32": "dtype=tl.float16",
                "acc += tl.dot(left, right)": "acc += tl.dot(left, right).to(tl.float16)"}, r"rounded to "
                        r"float16"),
        Mistake("forgets to mask the store", {", mask=(i < m)[:, None] & (j < n)[None, :])\n\n": ")\n\n"}, r"wrote to "
                r"memory behind"),
    ),
)  # fmt: skip
