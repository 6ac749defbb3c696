"""A loss scale that looks after itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial
from ulpgrad.formats import Array

INTERVAL = 4


def right(scale: float, good: int, grads: Array) -> tuple[float, int, Array | None]:
    if not np.isfinite(grads).all():
        return scale / 2, 0, None
    made = grads.astype(np.float32) / np.float32(scale)
    return (scale * 2, 0, made) if good + 1 == INTERVAL else (scale, good + 1, made)


def check(trial: Trial) -> None:
    rng = trial.rng
    for name, size, bad in (
        ("ordinary gradients", 1.0, None), ("gradients with an infinity", 1.0, np.inf), ("gradients with a NaN", 1.0, np.nan),
        ("gradients that float16 would lose", 2e-9, None),
    ):  # fmt: skip
        trial.stage(name)
        scale = 2.0 ** int(rng.integers(13, 16))
        grads = (rng.uniform(0.5, 1, 6) * size * scale).astype(np.float16)
        if bad is not None:
            grads[rng.integers(6)] = bad
        for good in (0, INTERVAL - 1, 1):
            compare(trial, scale, good, grads, bad)
    trial.stage("forty steps in a row")
    scale, good = 2.0**15, 0
    for step in range(40):
        grads = (rng.standard_normal(5) * 1e-5 * scale).astype(np.float16)
        if step % 9 == 4 or (step > 30 and rng.random() < 0.3):
            grads[rng.integers(5)] = -np.inf
        compare(trial, scale, good, grads, -np.inf if not np.isfinite(grads).all() else None)
        scale, good, _ = right(scale, good, grads)


def compare(trial: Trial, scale: float, good: int, grads: Array, bad: float | None) -> None:
    got: Any = trial.call("step", scale, good, grads, INTERVAL)
    call = f"step(scale={scale:g}, good={good}, ..., interval={INTERVAL})"
    if not (isinstance(got, tuple) and len(got) == 3):
        trial.wrong(f"{call} returned {type(got).__name__}: expected (scale, good, gradients or None)")
    new_scale, new_good, made = got
    want_scale, want_good, want = right(scale, good, grads)
    if want is None and made is not None:
        trial.wrong(
            f"{call} returned gradients although one of them is {bad}: one such value makes every weight that it "
            f"touches NaN, for "
            "good. Skip the step: return None. (NaN is not equal to infinity: np.isfinite sees both.)"
        )
    if want is not None and made is None:
        trial.wrong(f"{call} skipped a step whose gradients are all finite.")
    if new_scale != want_scale:
        why = (
            "after an overflow it is halved" if want is None else f"after {INTERVAL} good steps it is doubled" if want_good == 0
            else f"it changes after {INTERVAL} good steps in a row only"
        )  # fmt: skip
        trial.wrong(f"{call} made the scale {new_scale:g}: {why}, so {want_scale:g}.")
    if new_good != want_good:
        why = "an overflow, or a new scale, starts the count again" if want_good == 0 else "this step was a good one"
        trial.wrong(f"{call} left the count of good steps at {new_good}: {why}, so {want_good}.")
    if want is None or made is None:
        return
    if isinstance(made, np.ndarray) and made.dtype != np.float32:
        trial.wrong(
            f"{call} returned gradients in {made.dtype}. Divided by the scale they are as small as they were before, "
            f"and float16 loses "
            "what is below 6e-8, which is what the scale was for: widen to float32 first."
        )
    with np.errstate(all="ignore"):
        trial.near(made, want, ulps=1, what="the gradient", suspects={
            "The gradients were divided in float16 and widened afterwards: what was below 6e-8 is gone already. Widen "
            "first.":
                (grads / np.float16(scale)).astype(np.float32),
            "They are divided by the new scale; they were made with the old one.": want * np.float32(scale / want_scale),
            "They have to be divided by the scale.": grads.astype(np.float32),
        })  # fmt: skip


EXERCISE = Exercise(
    rank=170,
    title="A dynamic loss scale",
    teaches="Small gradients drown in float16: scale them up, notice when that is too much, and never use a broken "
            "step.",
    asks=("step",),
    check=check,
    hints=(
        "First: are all gradients finite? `np.isfinite` is false for infinities and for NaN.",
        "If not: half the scale, count 0, no gradients. The weights must not see them.",
        "If they are: widen to float32, *then* divide by the scale that they were made with.",
        "Count the good step. When the count reaches `interval`, double the scale and start counting at 0.",
    ),
    mistakes=(
        Mistake("looks for infinities only", {"np.isfinite(grads).all()": "not np.isinf(grads).any()"}, r"NaN is not "
                r"equal"),
        Mistake("unscales in float16", {"grads.astype(np.float32) / np.float32(scale)": "grads / np.float16(scale)"},
                r"widen to float32"),
        Mistake("uses the new scale", {
            "    made = grads.astype(np.float32) / np.float32(scale)\n    good += 1\n    if good == interval:\n       "
            " return scale * 2, 0, made\n":
            "    good += 1\n    made = grads.astype(np.float32) / np.float32(scale * (2 if good == interval else 1))\n"
            "    if good == interval:\n        return scale * 2, 0, made\n",
        }, r"divided by the new scale"),
        Mistake("does not start the count again", {"scale / 2, 0, None": "scale / 2, good, None"}, r"starts the count "
                r"again"),
        Mistake("gives zeros for a broken step", {"scale / 2, 0, None": "scale / 2, 0, np.zeros(grads.shape, "
                "np.float32)"},
                r"Skip the step"),
    ),
)  # fmt: skip
