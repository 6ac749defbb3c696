"""Attention without its matrix of scores, in NumPy."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial
from ulpgrad.formats import Array
from ulpgrad.kernels import registry

LONG = 1024


def unscaled(q: Array, k: Array, v: Array, block: int, *, total_too: bool) -> Array:
    """What comes out if the weighted sum (and the total) is not corrected when the maximum grows."""
    top, total, out = np.full((len(q), 1), -np.inf), np.zeros((len(q), 1)), np.zeros((len(q), v.shape[1]))
    for j in range(0, len(k), block):
        s = q @ k[j : j + block].T / np.sqrt(q.shape[1])
        new = np.maximum(top, s.max(1, keepdims=True))
        w, shrink = np.exp(s - new), np.exp(top - new)
        total = (total if total_too else total * shrink) + w.sum(1, keepdims=True)
        out, top = out + w @ v[j : j + block], new
    return np.asarray(out / total)


def check(trial: Trial) -> None:
    reference = registry.find("attention").reference
    for n, m, d, e, block, spread in ((4, 4, 3, 3, 2, 1), (5, 8, 4, 3, 4, 3), (3, 7, 4, 6, 3, 3), (2, 5, 8, 2, 16, 1),
                                      (6, 9, 5, 5, 1, 8)):  # fmt: skip
        trial.stage(f"{n} queries, {m} keys, blocks of {block}")
        q = trial.rng.standard_normal((n, d)) * spread
        k, v = trial.rng.standard_normal((m, d)) * spread, trial.rng.standard_normal((m, e))
        want = reference(q, k, v, None, is_causal=False, scale=1 / np.sqrt(d))[0]
        whole = m // block * block
        bare = reference(q, k, v, None, is_causal=False, scale=1.0)[0]
        cut = reference(q, k[:whole], v[:whole], None, is_causal=False, scale=1 / np.sqrt(d))[0] if whole else 0
        got = trial.call("attention", q, k, v, block)
        trial.near(got, want, ulps=256, magnitude=np.full(want.shape, 10.0), what="the result", suspects={
            "The sum of weighted values was not corrected: when the maximum grows from `top` to `new`, everything "
            "that was summed before is too large by exp(new - top), rows of `out` as well as `total`.":
                unscaled(q, k, v, block, total_too=False),
            "Neither sum was corrected when the maximum grew: multiply both by exp(top - new).":
                unscaled(q, k, v, block, total_too=True),
            "The scores are not scaled by 1 / sqrt(d).": bare,
            "The last keys are missing: the last block may be shorter.": cut,
        })  # fmt: skip
    trial.stage(f"memory, for {LONG} queries and keys")
    q, k, v = trial.rng.standard_normal((3, LONG, 4))
    held = trial.peak("attention", q, k, v, 32)
    if held > LONG * LONG * 8 // 2:
        trial.wrong(
            f"The result is right, but {held / 1e6:.0f} MB were held at once: the scores of all {LONG} queries and "
            f"keys are {LONG**2 * 8 / 1e6:.0f} MB. Take `block` keys at a time, and keep of each query only its "
            f"maximum, its total and its sum of "
            "weighted values."
        )


EXERCISE = Exercise(
    rank=260,
    title="Attention by blocks",
    teaches="The online softmax, applied to a weighted sum of rows: attention in memory that does not grow with n².",
    asks=("attention",),
    check=check,
    hints=(
        "For each query keep three things: `top`, the largest score so far, `total`, the sum of exp(score - top), and "
        "`out`, the sum of exp(score - top) * v. In NumPy: arrays of shape (n, 1), (n, 1), (n, e).",
        "For a block of keys: s = q @ k_block.T / sqrt(d), new = max(top, largest of s), w = exp(s - new).",
        "Before the block is added, everything summed so far shrinks by exp(top - new): `total` and `out` alike.",
        "At the end, once: out / total. Slices k[j : j + block] take care of a last, shorter block.",
    ),
    mistakes=(
        Mistake("does not correct the values", {"out * shrink": "out"}, r"as well as `total`"),
        Mistake("corrects nothing", {"out * shrink": "out", "total * shrink": "total"}, r"Neither sum"),
        Mistake("forgets the scale", {" / np.sqrt(q.shape[1])": ""}, r"not scaled by"),
        Mistake("whole blocks only", {"range(0, len(k), block)": "range(0, len(k) // block * block, block)"},
                r"last keys are missing|nan"),
        Mistake("takes all keys at once",
                {"range(0, len(k), block)": "range(0, 1)", "k[j : j + block]": "k", "v[j : j + block]": "v"},
                r"held at once"),
    ),
)  # fmt: skip
