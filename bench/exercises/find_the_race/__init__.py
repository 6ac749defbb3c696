"""A data race, found by looking at who writes what, not by luck."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial


def check(trial: Trial) -> None:
    bins = 8
    for n, parts in ((40, 4), (37, 4), (3, 4), (64, 1)):
        trial.stage(f"{n} values, {parts} parts")
        codes = trial.rng.integers(0, bins, n).astype(np.int64)
        own, out = np.zeros((parts, bins), np.int64), trial.blank(bins, np.int64)
        trial.call("histogram", codes, own, out, writes=[1, 2])
        want = np.bincount(codes, minlength=bins)
        trial.same(out, want, what="out", suspects={
            "The values after the last whole part are missing: parts must cover all n of them, also where n is no "
            "multiple.":
                np.bincount(codes[: n // parts * parts], minlength=bins),
        })  # fmt: skip
    trial.stage("who writes what")
    codes = trial.rng.integers(0, bins, 40).astype(np.int64)
    run = trial.trace("histogram", codes, np.zeros((4, bins), np.int64), np.zeros(bins, np.int64))
    if not run.loops:
        trial.wrong("The counts are right, but nothing runs in parallel any more: keep a loop over `prange`.")
    for array, element, one, other in run.races():
        name = ("codes", "own", "out")[array]
        place = f"own[{element // bins}, {element % bins}]" if array == 1 else f"{name}[{element}]"
        trial.wrong(
            f"{place} is written by iteration {one} of prange and touched by iteration {other}, which may run at the "
            f"same "
            "moment. Both read the same count, both add one, both write it back: one count is lost. It can go well a "
            "thousand times. Give each iteration memory of its own, and add up afterwards, in a loop that is not "
            "parallel."
        )


EXERCISE = Exercise(
    rank=70,
    title="Find the race",
    teaches="Two iterations of a parallel loop must not touch the same element if one of them writes it.",
    asks=("histogram",),
    check=check,
    requires=("numba",),
    hints=(
        "Which element of `out` does iteration i write? Can iteration i + 1 write the same one?",
        "`own` has a row for each part: iteration `part` may do what it likes with `own[part]`, for no other touches "
        "it.",
        "Inside prange: count into `own[part, codes[i]]` for the values of that part. After it: sum the rows into "
        "`out`.",
        "The parts: from `part * n // parts` up to `(part + 1) * n // parts` they cover all n values, whatever n is.",
    ),
    mistakes=(
        Mistake("counts into out from all threads", {
            "own[part, codes[i]] += 1": "out[codes[i]] += 1",
            "            out[k] += own[part, k]": "            pass",
            "    for k in range(len(out)):\n        out[k] = 0\n": "",
            "    parts = len(own)\n": "    parts = len(own)\n    for k in range(len(out)):\n        out[k] = 0\n",
        }, r"written by iteration"),
        Mistake("sums the rows in parallel", {
            "    for part in range(parts):\n        for k": "    for part in prange(parts):\n        for k",
        }, r"out\[\d\] is written by iteration"),
        Mistake("leaves out the rest", {
            "(part + 1) * len(codes) // parts": "part * (len(codes) // parts) + len(codes) // parts",
            "range(part * len(codes) // parts,": "range(part * (len(codes) // parts),",
        }, r"after the last whole part"),
        Mistake("gives up on threads", {
            "for part in prange(parts):\n        for i": "for part in range(parts):\n        for i",
        }, r"nothing runs in parallel"),
        Mistake("one row for all", {"own[part, codes[i]] += 1": "own[0, codes[i]] += 1"}, r"own\[0, \d\] is written "
                r"by"),
    ),
)  # fmt: skip
