"""A parallel sum whose bits do not depend on how many threads there are."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial
from ulpgrad.bench.classroom.trace import OUTSIDE


def check(trial: Trial) -> None:
    for n in (8, 64, 100, 1000, 4096):
        trial.stage(f"{n} values")
        x = (trial.rng.standard_normal(n) * 10 ** trial.rng.uniform(-3, 3, n)).astype(np.float32)
        sums = {}
        for threads in (1, 2, 3, 5, 8):
            work, out = np.zeros(n, np.float32), trial.blank(1)
            trial.call("total", x, threads, work, out, writes=[2, 3])
            trial.near(out, x.astype(np.float64).sum(keepdims=True), ulps=64, magnitude=np.abs(x).sum(keepdims=True),
                       what=f"out, with threads={threads},", suspects={
                "The values after the last whole chunk are missing.":
                    x[: n // 64 * 64].astype(np.float64).sum(keepdims=True),
            })  # fmt: skip
            sums[threads] = out[0]
        other = next((t for t in sums if sums[t].tobytes() != sums[1].tobytes()), None)
        if other is not None:
            trial.wrong(
                f"1 thread gives {sums[1]:.9g}, {other} threads give {sums[other]:.9g}. Both are good sums, but float "
                f"addition is not "
                "associative: where the pieces begin and end decides the last bits. Let pieces have a fixed length, "
                "whatever `threads` is, and add up their sums in order; threads only share out who does which piece."
            )
    trial.stage("who does what")
    x = trial.rng.standard_normal(512).astype(np.float32)
    run = trial.trace("total", x, 4, np.zeros(512, np.float32), trial.blank(1))
    for array, _, one, two in run.races():
        trial.wrong(
            f"Iterations {one} and {two} of prange write to the same element of {('x', 'work', 'out')[array]}: a "
            f"race. Each may "
            "write to places of its own only; the loop over the pieces' sums comes after it, outside prange."
        )
    shares: dict[int, int] = {}
    for a in run.accesses:
        if a.array == 0:
            shares[a.iteration] = shares.get(a.iteration, 0) + 1
    if shares.get(OUTSIDE) or max(shares.values()) > 256:
        trial.wrong(
            f"The bits are the same now, because one thread does nearly everything: {max(shares.values())} of 512 "
            f"values. Of 4 "
            "threads, none should need to take more than 256: keep the pieces in prange."
        )


EXERCISE = Exercise(
    rank=60,
    title="The same bits on any number of threads",
    teaches="Float addition is not associative: cut the work by its own size, never by the number of workers.",
    asks=("total",),
    check=check,
    requires=("numba",),
    forbids={"sum": "Write the loops: which order they add in is what this is about."},
    hints=(
        "(a + b) + c and a + (b + c) differ in the last bits. Which sums are formed depends on where a piece begins "
        "and ends.",
        "Choose a length, say 64: piece c is x[64 c : 64 (c + 1)], and its sum goes to work[c]. `threads` does not "
        "occur in that.",
        "Over what does prange run? Over the pieces themselves: Numba shares them out among the threads there are.",
        "`chunks = (len(x) + 63) // 64`; after prange, one plain loop adds work[0], work[1], ... in order.",
    ),
    mistakes=(
        Mistake("a piece per thread", {"(len(x) + CHUNK - 1) // CHUNK": "threads",
                "range(c * CHUNK, min((c + 1) * CHUNK, len(x)))": "range(c * len(x) // threads, (c + 1) * len(x) // "
                "threads)"},
                r"not associative"),
        Mistake("adds to out in parallel", {"work[c] += x[i]": "out[0] += x[i]", "        out[0] += work[c]": "        pass",
                "    out[0] = 0\n": "", "    chunks =": "    out[0] = 0\n    chunks ="}, r"a race"),
        Mistake("one thread does it all", {"prange(chunks)": "range(chunks)"}, r"one thread does nearly everything"),
        Mistake("whole pieces only", {"(len(x) + CHUNK - 1) // CHUNK": "len(x) // CHUNK"}, r"last whole chunk|right "
                r"is"),
    ),
)  # fmt: skip
