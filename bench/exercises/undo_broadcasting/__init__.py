"""The gradient of an operand that was broadcast."""

from __future__ import annotations

import numpy as np

import ulpgrad as ug
from ulpgrad.bench.classroom import Exercise, Mistake, Trial

CASES = (
    ((3, 4), (4,)),
    ((3, 4), (3, 1)),
    ((2, 3, 4), (1, 4)),
    ((2, 3, 4), (2, 1, 1)),
    ((5,), (5,)),
    ((3, 3), (3,)),
    ((2, 3), ()),
)


def check(trial: Trial) -> None:
    for large, small in CASES:
        trial.stage(f"an operand of shape {small} in a result of shape {large}")
        g = trial.rng.standard_normal(large)
        x = ug.zeros(small, dtype=ug.float64, requires_grad=True)
        (x + ug.zeros(large, dtype=ug.float64)).backward(ug.asarray(g))
        assert x.grad is not None
        want = x.grad.numpy()
        got = trial.call("unbroadcast", g, small)
        if isinstance(got, np.ndarray) and got.shape != small:
            why = (
                "axes of size 1 stay, with size 1: sum with keepdims=True" if got.ndim < len(small)
                else "axes that were put in front are gone again: sum over them" if got.ndim > len(small)
                else "sum over the axes in which the operand has size 1" if 1 in small
                else "shapes are matched from the last axis backwards, so the axes to sum over stand in front"
            )  # fmt: skip
            trial.wrong(
                f"The gradient has shape {got.shape}; the operand has {small}, and so must its gradient: {why}."
            )
        count = g.size / max(1, want.size)
        trial.near(got, want, ulps=16, magnitude=np.full(small, np.abs(g).sum()), what="the gradient", suspects={
            "That is the mean. Each copy of the element has an influence of its own, and influences add up: sum.":
                want / count,
            "The sum ran over the wrong axis: shapes are matched from the last axis backwards, so new axes stand in "
            "front.":
                g.sum(axis=-1) if g.sum(axis=-1).shape == small else 0,
            "Only one of the copies is counted; influences of all of them add up.":
                g[tuple(slice(0, 1) for _ in range(g.ndim))].reshape(-1)[0] if not small else g[0] if g[0].shape == small else 0,
        })  # fmt: skip


EXERCISE = Exercise(
    rank=220,
    title="Undo broadcasting",
    teaches="What is copied forwards is summed backwards: every gradient rule of two operands ends in this.",
    asks=("unbroadcast",),
    check=check,
    hints=(
        "An element that was used k times has k influences on the result. Its gradient is their sum.",
        "Broadcasting does two things: it puts axes in front, and it repeats axes of size 1. Undo the first by "
        "summing over the first `g.ndim - len(shape)` axes.",
        "Undo the second by summing over axes i with shape[i] == 1, keepdims=True.",
    ),
    mistakes=(
        Mistake("takes the mean", {"g.sum(axis=tuple(range(g.ndim - len(shape))))": "g.mean(axis=tuple(range(g.ndim - "
                "len(shape))))"},
                r"That is the mean"),
        Mistake("forgets the axes in front", {"    g = g.sum(axis=tuple(range(g.ndim - len(shape))))\n": "    extra = "
                "g.ndim - len(shape)\n"},
                r"put in front are gone again"),
        Mistake("loses axes of size 1", {"axis=ones, keepdims=True": "axis=ones"}, r"keepdims=True"),
        Mistake("leaves repeated axes", {"return g.sum(axis=ones, keepdims=True)": "return g + 0 * len(ones)"},
                r"has size 1"),
        Mistake("sums the last axes", {"tuple(range(g.ndim - len(shape)))": "tuple(range(len(shape), g.ndim))"},
                r"matched from the last"),
        Mistake("takes one copy", {"g.sum(axis=tuple(range(g.ndim - len(shape))))": "g[(0,) * (g.ndim - len(shape))]"},
                r"Only one of the copies"),
    ),
)  # fmt: skip
