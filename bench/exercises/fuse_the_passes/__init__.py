"""Three sweeps over memory become one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Race, Trial


def check(trial: Trial) -> None:
    for shape in ((3, 5), (1, 33), (4, 1)):
        trial.stage(f"{shape[0]} rows of {shape[1]}")
        x, residual = trial.rng.standard_normal((2, *shape)).astype(np.float32)
        scale, shift = trial.rng.standard_normal((2, shape[1])).astype(np.float32)
        one = x.copy()
        one[0, 0] = np.nan
        for name, given in (("ordinary values", x), ("a NaN among them", one)):
            trial.stage(f"{shape[0]} rows of {shape[1]}, {name}")
            y = trial.blank(shape)
            trial.call("block", given, scale, shift, residual, y, writes=[4])
            inner = given.astype(np.float64) * scale + shift
            cut = np.where(inner < 0, 0, inner)
            size = np.abs(given.astype(np.float64) * scale) + np.abs(shift) + np.abs(residual)
            trial.near(y, cut + residual, ulps=2, magnitude=np.nan_to_num(size), what="y", suspects={
                "The residual is added after the cut at zero, not before it.":
                    np.where(inner + residual < 0, 0, inner + residual),
                "The NaN became a number. A comparison with NaN is false, so `v if v > 0 else 0` turns it into 0: ask "
                "whether "
                "v < 0 instead, and it stays.": np.where(inner > 0, inner, 0) + residual,
                "The residual is missing.": cut,
            })  # fmt: skip
    trial.stage("reads and writes")
    x, residual = trial.rng.standard_normal((2, 4, 9)).astype(np.float32)
    run = trial.trace("block", x, x[0], x[1], residual, trial.blank(x.shape))
    for number, name in ((0, "x"), (3, "residual"), (4, "y")):
        reads, writes = run.count(number).max(), run.count(number, writes=True).max()
        if number == 4 and reads:
            trial.wrong(
                f"The values are right, but y is read back {reads} times per element: each sweep sends the whole "
                f"matrix to memory "
                "and fetches it again. Keep the value in a variable until it is finished."
            )
        if max(reads, writes) > 1:
            trial.wrong(
                f"The values are right, but an element of {name} is touched {max(reads, writes)} times; once is enough."
            )


def against_the_given(answer: ModuleType, rng: np.random.Generator) -> Mapping[str, Callable[[], Any]]:
    from ulpgrad.bench.exercises.fuse_the_passes import stub

    x, residual = rng.standard_normal((2, 4096, 1024)).astype(np.float32)
    operands = (x, x[0].copy(), x[1].copy(), residual, np.empty_like(x))
    return {"yours": lambda: answer.block(*operands), "the kernel that was given": lambda: stub.block(*operands)}


EXERCISE = Exercise(
    rank=30,
    title="Fuse three passes",
    teaches="Elementwise work is limited by memory: do all of it while the value is in a register.",
    asks=("block",),
    check=check,
    requires=("numba",),
    hints=(
        "One double loop is enough: everything that happens to y[i, j] needs x[i, j], residual[i, j], scale[j] and "
        "shift[j] only.",
        "`v = x[i, j] * scale[j] + shift[j]`, then the cut at zero, then the residual, and one store.",
        "The cut, so that a NaN stays one: `if v < 0: v = 0`, written with a float: `v = v * 0`, or `v = "
        "np.float32(0)`.",
    ),
    mistakes=(
        Mistake("adds the residual too early", {"            v = x[i, j] * scale[j] + shift[j]":
                "            v = x[i, j] * scale[j] + shift[j] + residual[i, j]", " = v + residual[i, j]": " = v"},
                        r"after the cut"),
        Mistake("loses NaN", {"            if v < 0:": "            if not v > 0:"}, r"The NaN became a number"),
        Mistake("goes through y", {"y[i, j] = v + residual[i, j]": "y[i, j] = v\n            y[i, j] += residual[i, "
                "j]"},
                r"y is read back 1 times"),
        Mistake("forgets the residual", {" = v + residual[i, j]": " = v"}, r"residual is missing"),
    ),
    race=Race(against_the_given, "clearly faster than the kernel that was given, on 4096 x 1024 values"),
)  # fmt: skip
