"""Range against resolution: how many bits before the point?"""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial
from ulpgrad.formats import Array, Q


def fits(values: Array, m: int, n: int) -> bool:
    """Whether no value saturates when it is rounded to the nearest value of Q(m, n)."""
    form = Q(m, n)
    wide = Q(m + 8, n)
    return bool((form.exact(form.encode(values)) == wide.exact(wide.encode(values))).all())


def best(values: Array, bits: int) -> tuple[int, int]:
    return next((m, bits - 1 - m) for m in range(bits) if fits(values, m, bits - 1 - m))


def check(trial: Trial) -> None:
    for bits, low, high, name in ((16, -3.2, 5.7, "16 bits"), (8, -0.9, 0.4, "8 bits, all below one"), (8, -20, 90, "8 bits"),
                                  (12, -3.0, -2.0, "negative values only")):  # fmt: skip
        trial.stage(name)
        values = trial.rng.uniform(low, high, 50) * trial.rng.uniform(0.6, 1)
        judge(trial, values, bits)
    trial.stage("the most negative value")
    for power in trial.rng.permutation(4):
        judge(trial, np.append(trial.rng.uniform(-1, 0.9, 20), -1.0) * 2.0**power, 8)
    trial.stage("a largest value that is rounded up")
    for power in trial.rng.permutation(4):
        step = 2.0 ** (power - 7)
        judge(trial, np.append(trial.rng.uniform(-0.5, 0.5, 20) * 2.0**power, 2.0**power - 0.3 * step), 8)


def judge(trial: Trial, values: Array, bits: int) -> None:
    chosen = trial.call("choose", values, bits)
    if not (isinstance(chosen, tuple) and len(chosen) == 2):
        trial.wrong(f"choose returned {chosen!r}: expected (m, n), the bits before and after the point")
    m, n = (int(v) for v in chosen)
    low, high = values.min(), values.max()
    if m < 0 or n < 0 or m + n + 1 != bits:
        trial.wrong(f"Q({m}, {n}) has {m + n + 1} bits, sign included; {bits} were asked for: m + n = {bits - 1}.")
    if (m, n) == best(values, bits):
        return
    form = Q(m, n)
    span = f"values from {low:.6g} to {high:.6g} and {bits} bits"
    if not fits(values, m, n):
        over = values[int(np.argmax(np.abs(values - form.exact(form.encode(values)))))]
        if form.max < over < 2.0**m:
            trial.wrong(
                f"For {span} you chose Q({m}, {n}). {over:.6g} lies below {2.0**m:g}, but the largest code is "
                f"{form.max:g}, and the nearest multiple of {2.0**-n:g} is {np.rint(over * 2.0**n) / 2.0**n:g}: "
                f"rounding up leaves the range."
            )
        trial.wrong(
            f"For {span} you chose Q({m}, {n}), which reaches from {form.min:g} to {form.max:g}: {over:.6g} "
            f"saturates. Give it "
            "bits before the point; look at both ends, negative values count by their size."
        )
    better = best(values, bits)
    ends = ""
    if low == -(2.0 ** better[0]):
        ends = f" {low:g} is still a code of Q{better}: two's complement reaches one step further down than up."
    trial.wrong(
        f"For {span} you chose Q({m}, {n}). Nothing saturates, but Q{better} takes them as well, and its steps are "
        f"{2.0 ** (better[1] - n):g} times as fine.{ends}"
    )


EXERCISE = Exercise(
    rank=130,
    title="Choose the Q format",
    teaches="A bit before the point doubles the range, a bit after it halves the error; there is one right split.",
    asks=("choose",),
    check=check,
    hints=(
        "Q(m, n) has a sign, m bits before the point and n after it. Its codes are whole numbers from -2^(m+n) to "
        "2^(m+n) - 1; a code c means c * 2^-n.",
        "Try m = 0, 1, 2, ... and take the first that holds everything: fewer bits before the point are more after it.",
        "A value v becomes the code np.rint(v * 2**n). It fits if that code lies between the two ends; they are not "
        "symmetric.",
    ),
    mistakes=(
        Mistake("looks at the largest value only", {"codes.min() >= -(2 ** (bits - 1)) and ": ""}, r"saturates.*both "
                r"ends"),
        Mistake("compares before rounding", {"np.rint(values * 2.0**n)": "np.floor(values * 2.0**n)"}, r"rounding up "
                r"leaves"),
        Mistake("takes the ends as symmetric", {"codes.min() >= -(2 ** (bits - 1))": "codes.min() > -(2 ** (bits - "
                "1))"},
                r"one step further down|times as fine"),
        Mistake("forgets the sign", {"n = bits - 1 - m": "n = bits - m"}, r"bits, sign included"),
        Mistake("gives away a bit", {"return m, n": "return m + 1, n - 1"}, r"times as fine"),
    ),
)  # fmt: skip
