"""A matrix product whose blocks stay in the cache."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial

LINE, LINES, SIZE = 8, 40, 24


def check(trial: Trial) -> None:
    for m, k, n in ((24, 40, 24), (8, 8, 8), (5, 3, 7), (17, 35, 19), (1, 20, 1)):
        trial.stage(f"({m}, {k}) times ({k}, {n})")
        a = trial.rng.standard_normal((m, k)).astype(np.float32)
        b = trial.rng.standard_normal((k, n)).astype(np.float32)
        c = trial.blank((m, n))
        trial.call("multiply", a, b, c, writes=[2])
        last = {
            f"That is the product over the last of the blocks of k alone (size {s}): blocks of k add up in c, they do "
            f"not replace "
            "each other. Set c to zero once, before all blocks.":
                np.matmul(a[:, (k - 1) // s * s :], b[(k - 1) // s * s :])
            for s in (4, 8, 16, 32) if k > s
        }  # fmt: skip
        whole = {
            f"The last {k % s} of {k} steps of k are missing: the last block is smaller, so let it end at min(p0 + "
            f"{s}, k).":
            np.matmul(a[:, : k // s * s], b[: k // s * s]) for s in (4, 8, 16, 32) if k % s
        }  # fmt: skip
        trial.against("matmul", (a, b), {}, c, what="c", suspects={**last, **whole})
    trial.stage("misses of the cache")
    a, b = trial.rng.standard_normal((2, SIZE, SIZE)).astype(np.float32)
    missed = trial.trace("multiply", a, b, trial.blank(a.shape)).misses(lines=LINES, line=LINE)
    lines = SIZE * SIZE // LINE
    if missed > 10 * lines:
        trial.wrong(
            f"The product is right, but a cache of {LINES} lines of {LINE} values missed {missed} times for matrices "
            f"of {lines} lines each; {10 * lines} are allowed. For every row of a, the whole of b comes from memory "
            f"again. Take a block of b that "
            "fits, at most 16 x 16 here, and use it for all rows of a before the next block."
        )


EXERCISE = Exercise(
    rank=50,
    title="Tile this matmul",
    teaches="A product of n x n matrices does n operations per value it reads, if only values are kept long enough.",
    asks=("multiply",),
    check=check,
    requires=("numba",),
    forbids={"@": "Write the loops.", "dot": "Write the loops.", "matmul": "Write the loops.", "einsum": "Write the "
            "loops."},
    hints=(
        "Count for one row of c: it needs one row of a, and all of b. How often is b read in all?",
        "Two more loops outside: over blocks of k (rows of b) and blocks of n (columns of b). The loop over the rows "
        "of a comes inside them, so that all rows use the block while it is there.",
        "`for p0 in range(0, k, 16): for j0 in range(0, n, 16): for i in range(m): for p in range(p0, min(p0 + 16, "
        "k)): ...`",
        "c gets a share from each block of k: set it to zero before everything, and only ever add.",
    ),
    mistakes=(
        Mistake("sets c to zero in each block", {
            "            for i in range(m):\n": "            c[:, j0 : j0 + BLOCK] = 0\n            for i in "
            "range(m):\n",
        }, r"do not replace\s+each other"),
        Mistake("whole blocks only", {"range(0, k, BLOCK)": "range(0, k // BLOCK * BLOCK, BLOCK)"}, r"steps of k are "
                r"missing"),
        Mistake("runs over the edge", {"min(j0 + BLOCK, n)": "j0 + BLOCK"}, r"IndexError"),
        Mistake("blocks, but rows outside", {
            "    for p0 in range(0, k, BLOCK):\n        for j0 in range(0, n, BLOCK):\n            for i in "
            "range(m):\n":
            "    for i in range(m):\n        for p0 in range(0, k, BLOCK):\n            for j0 in range(0, n, "
            "BLOCK):\n",
        }, r"the whole of b comes from memory again"),
        Mistake("does not set c to zero", {"            c[i, j] = 0": "            pass"}, r"set to zero first"),
    ),
)  # fmt: skip
