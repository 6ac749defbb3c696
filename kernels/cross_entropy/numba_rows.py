"""A row at a time, with the softmax never stored: maximum and sum of exponentials, then one number per row.

Next limit: exp, a scalar call per value in Numba.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import INTEGERS, Array, float32, float64
from ulpgrad.kernels.cross_entropy import spec
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.registry import kernel

FORMATS = [float32, float64, *INTEGERS]


@jit(parallel=True)
def _forward(x, target, ignore_index, smoothing, losses, lse):  # type: ignore[no-untyped-def]
    kind = x.dtype.type
    classes = x.shape[1]
    spread = kind(smoothing / classes) if classes else kind(0)
    hit = kind(1 - smoothing)
    for i in prange(x.shape[0]):
        top = kind(-np.inf)
        for j in range(classes):
            top = max(top, x[i, j])
        total = kind(0)
        shifts = kind(0)
        for j in range(classes):
            total += np.exp(x[i, j] - top)
            shifts += x[i, j] - top
        log = np.log(total)
        lse[i] = top + log
        t = target[i]
        if t == ignore_index:
            losses[i] = 0
        else:
            losses[i] = hit * (log - (x[i, t] - top)) if hit else kind(0)
            if spread:
                losses[i] += spread * (kind(classes) * log - shifts)


@jit(parallel=True)
def _gradient(g, x, target, lse, ignore_index, smoothing, out):  # type: ignore[no-untyped-def]
    kind = x.dtype.type
    classes = x.shape[1]
    spread = kind(smoothing / classes) if classes else kind(0)
    for i in prange(x.shape[0]):
        t = target[i]
        if t == ignore_index:
            out[i] = 0
        else:
            for j in range(classes):
                out[i, j] = g[i] * (np.exp(x[i, j] - lse[i]) - spread)
            out[i, t] = g[i] * ((np.exp(x[i, t] - lse[i]) - spread) - kind(1 - smoothing))


@kernel(spec.cross_entropy, "cpu/numba-rows", rank=20, formats=FORMATS)
def cross_entropy(logits: Array, target: Array, *, ignore_index: int, label_smoothing: float) -> tuple[Array, Array]:
    spec.validate("cross_entropy", target, logits.shape[1], ignore_index)
    losses, lse = np.empty(len(target), logits.dtype), np.empty(len(target), logits.dtype)
    _forward(logits, target.astype(np.int64), ignore_index, label_smoothing, losses, lse)
    return losses, lse


@kernel(spec.cross_entropy_gradient, "cpu/numba-rows", rank=20, formats=FORMATS, where=spec.one_format(0, 1, 3))
def cross_entropy_gradient(
    g: Array, logits: Array, target: Array, lse: Array, *, ignore_index: int, label_smoothing: float
) -> Array:
    spec.validate("cross_entropy_gradient", target, logits.shape[1], ignore_index)
    out = np.empty_like(logits, order="C")
    _gradient(g, logits, target.astype(np.int64), lse, ignore_index, label_smoothing, out)
    return out
