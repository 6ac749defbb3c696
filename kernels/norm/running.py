"""Running statistics of batch normalization, moved in place towards those of a batch."""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array, Format
from ulpgrad.kernels import native

DROWNED = 0.125  # of eps: a variance below that has lost its digits in 1 / sqrt(variance + eps)


def moved(
    running: tuple[Array | None, Array | None], mean: Array, rstd: Array, eps: float, momentum: float, unbiased: float
) -> bool:
    """Moves running mean and variance by `momentum` towards a batch's mean and, times `unbiased`, its variance, of which rstd
    is 1 / sqrt(variance + eps). False, and nothing is moved, where that is left to `variance` and `move`."""
    if native.missing() is not None or any(
        r is not None and (r.dtype not in (np.float32, np.float64) or not r.flags.carray) for r in running
    ):
        return False
    done: bool = native.module().move_statistics(*running, mean, rstd, eps, DROWNED * eps, momentum, unbiased)
    return done


def variance(x: Array, form: Format, mean: Array, rstd: Array, eps: float) -> Array:
    """The biased variance per channel of x that 1 / rstd came from, in float64; summed anew where eps drowns it."""
    with np.errstate(all="ignore"):
        found: Array = 1.0 / np.square(rstd, dtype=np.float64) - eps
        for c in np.flatnonzero(found < DROWNED * eps):
            centred = form.exact(x[:, c]) - mean[c]
            found[c] = np.mean(centred * centred)
    return found


def move(running: Array, form: Format, towards: Array, momentum: float) -> None:
    """Moves one running statistic, in a format."""
    running[...] = form.encode(form.exact(running) * (1 - momentum) + towards * momentum)
