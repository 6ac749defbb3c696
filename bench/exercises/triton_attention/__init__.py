"""Fused causal attention in Triton."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial
from ulpgrad.bench.exercises.attention_by_blocks import unscaled
from ulpgrad.kernels import registry

D, BLOCK = 16, 16


def check(trial: Trial) -> None:
    reference = registry.find("attention").reference
    for n, spread in ((16, 1), (32, 1), (48, 3), (37, 3), (5, 1)):
        trial.stage(f"{n} positions")
        q, k, v = (trial.fenced(a.astype(np.float32)) for a in trial.rng.standard_normal((3, n, D)) * spread)
        out = trial.fenced(trial.blank((n, D)))
        trial.call("attention", q, k, v, out, writes=[3])
        wide = [a.astype(np.float64) for a in (q, k, v)]
        scale = 1 / np.sqrt(D)
        want = reference(*wide, None, is_causal=True, scale=scale)[0]
        before = np.tri(n, k=-1, dtype=bool)
        before[0, 0] = True
        with np.errstate(all="ignore"):
            shifted = reference(*wide, before, is_causal=False, scale=scale)[0]
        if np.isnan(out).any() and n % BLOCK:
            trial.wrong(
                f"out holds NaN for {n} positions: NaN lies in memory behind the arrays. Keys and values from n on "
                f"must be loaded as 0 "
                "(0 * NaN is NaN), and rows from n on must not be stored."
            )
        trial.near(out, want, ulps=64, magnitude=np.full(want.shape, np.abs(v).max()), what="out", suspects={
            "Every query sees all keys: query i sees keys 0 to i only. Put -inf for the others before the maximum is "
            "taken.":
                reference(*wide, None, is_causal=False, scale=scale)[0],
            "A query sees itself, too: keys j <= i.": shifted,
            "The scores are not scaled by 1 / sqrt(d).": reference(*wide, None, is_causal=True, scale=1.0)[0],
            "The sum of weighted values was not corrected when the maximum grew: both it and the total shrink by "
            "exp(top - new).":
                causal_unscaled(*wide),
            "That is divided by nothing: out is acc / total.": want * np.exp(scores_top(*wide[:2]))[:, None],
        })  # fmt: skip


def scores_top(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """log(total) of each row, relative to its maximum."""
    s = np.where(np.tri(len(q), dtype=bool), np.matmul(q, k.T) / np.sqrt(q.shape[1]), -np.inf)
    return np.asarray(np.log(np.exp(s - s.max(1, keepdims=True)).sum(1)))


def causal_unscaled(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Row by row, what comes out if the weighted values are not corrected."""
    rows = []
    for i in range(len(q)):
        rows.append(unscaled(q[i : i + 1], k[: i + 1], v[: i + 1], BLOCK, total_too=False)[0])
    return np.asarray(rows)


EXERCISE = Exercise(
    rank=300,
    title="Fused attention in Triton",
    teaches="Scores, softmax and the second product in one kernel: nothing of size n² ever reaches memory.",
    asks=("attention",),
    check=check,
    requires=("triton",),
    hints=(
        "A program owns BLOCK queries, and keeps for them `top` (BLOCK,), `total` (BLOCK,) and `acc` (BLOCK, D).",
        "For each block of keys: s = tl.dot(queries, keys) * scale, with `keys` loaded turned round, (D, BLOCK). "
        "Where j > i or j >= n, s = -inf: `tl.where`.",
        "`new = tl.maximum(top, tl.max(s, axis=1))`, `w = tl.exp(s - new[:, None])`, and all that was summed shrinks "
        "by exp(top - new).",
        "`acc = acc * shrink[:, None] + tl.dot(w, values)`; at the end `acc / total[:, None]`, masked.",
    ),
    mistakes=(
        Mistake("sees the future", {" & (j[None, :] <= i[:, None])": ""}, r"sees all keys"),
        Mistake("does not see itself", {"j[None, :] <= i[:, None]": "(j[None, :] < i[:, None]) | (i[:, None] + "
                "j[None, :] == 0)"},
                r"sees itself"),
        Mistake("does not correct the values", {"acc * shrink[:, None]": "acc"}, r"was not corrected"),
        Mistake("forgets the scale", {" * scale\n": "\n"}, r"not scaled by"),
        Mistake("loads what is not there", {"values = tl.load(v + j[:, None] * D + d[None, :], mask=(j < n)[:, None], "
                "other=0.0)":
                "values = tl.load(v + j[:, None] * D + d[None, :])"}, r"0 \* NaN is NaN"),
    ),
)  # fmt: skip
