"""Batch normalisation disappears into the convolution before it."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial
from ulpgrad.kernels import registry

EPS = 1e-3


def check(trial: Trial) -> None:
    conv2d = registry.find("conv2d").reference
    for o, i, size in ((4, 4, 3), (2, 3, 1), (1, 2, 2)):
        trial.stage(f"{o} filters of {i} channels, {size} x {size}")
        rng = trial.rng
        weight, bias = rng.standard_normal((o, i, size, size)), rng.standard_normal(o)
        gamma, beta, mean = rng.uniform(0.5, 2, o), rng.standard_normal(o), rng.standard_normal(o)
        var = rng.uniform(1e-4, 1e-2, o)  # small, so that eps is felt
        made = trial.call("fold", weight, bias, gamma, beta, mean, var, EPS)
        if not (isinstance(made, tuple) and len(made) == 2):
            trial.wrong("fold returns two arrays, the new weight and the new bias")
        factor = gamma / np.sqrt(var + EPS)
        folded, shift = weight * factor[:, None, None, None], (bias - mean) * factor + beta
        bare = gamma / np.sqrt(var)
        trial.near(made[0], folded, ulps=8, what="the weight", suspects={
            "eps is missing: it stands under the root beside the variance, and counts where that is small.":
                weight * bare[:, None, None, None],
            "The root is missing: normalisation divides by the standard deviation.":
                weight * (gamma / (var + EPS))[:, None, None, None],
            "The factors went along the input channels; there is one for each filter, the first axis. (With as many "
            "filters as channels, broadcasting does not notice.)":
                weight * np.resize(factor, i)[None, :, None, None],
            "gamma is missing.": weight * (1 / np.sqrt(var + EPS))[:, None, None, None],
        })  # fmt: skip
        most = np.abs(shift) + np.abs(bias * factor) + np.abs(mean * factor)
        trial.near(made[1], shift, ulps=32, magnitude=most, what="the bias", suspects={
            "The convolution's own bias is normalised like everything else that comes out of it: it is missing, or "
            "was added as it is.":
                bias - mean * factor + beta,
            "The convolution's own bias is missing.": beta - mean * factor,
            "The mean is subtracted before the scaling, so it is scaled as well.": bias * factor - mean + beta,
            "beta comes after the scaling, and is not scaled.": (bias - mean + beta) * factor,
            "The mean has the wrong sign: normalisation subtracts it.": (bias + mean) * factor + beta,
        })  # fmt: skip
        trial.stage(f"{o} filters of {i} channels, in a convolution")
        x = rng.standard_normal((2, i, 5, 5))
        params = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
        normed = (conv2d(x, weight, bias, **params) - mean[:, None, None]) * factor[:, None, None] + beta[:, None, None]
        trial.near(conv2d(x, *made, **params), normed, ulps=1e4, magnitude=np.abs(normed).max(), what="the convolution")


EXERCISE = Exercise(
    rank=210,
    title="Fold batch norm",
    teaches="Two linear maps in a row are one: a trained network needs no batch norm at all.",
    asks=("fold",),
    check=check,
    hints=(
        "Per filter, batch norm is y = factor * (conv - mean) + beta with factor = gamma / sqrt(var + eps).",
        "conv = weight * x + bias. Put that in, and sort by what stands before x and what does not.",
        "The new weight is weight * factor, one factor for each filter: `factor[:, None, None, None]`. The new bias: "
        "(bias - mean) * factor + beta.",
    ),
    mistakes=(
        Mistake("forgets eps", {"np.sqrt(var + eps)": "np.sqrt(var)"}, r"eps is missing"),
        Mistake("forgets the root", {"np.sqrt(var + eps)": "(var + eps)"}, r"root is missing"),
        Mistake("does not scale the bias", {"(bias - mean) * factor + beta": "bias - mean * factor + beta"},
                r"own bias is normalised"),
        Mistake("scales beta", {"(bias - mean) * factor + beta": "(bias - mean + beta) * factor"}, r"beta comes after"),
        Mistake("scales input channels", {"factor[:, None, None, None]": "np.resize(factor, weight.shape[1])[None, :, "
                "None, None]"},
                r"along the input channels"),
    ),
)  # fmt: skip
