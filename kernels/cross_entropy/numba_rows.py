"""A row at a time, with the softmax never stored: maximum and sum of exponentials, then one number per row, all in vectors.

Next limit: reading the logits from memory, once forward; backward a read and a write.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import INTEGERS, Array, float32, float64
from ulpgrad.kernels.cross_entropy import spec
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.numba_math import ZERO, T, exp_of_shifted
from ulpgrad.kernels.numba_rows import SUM, largest, sum_of_exp
from ulpgrad.kernels.registry import kernel

FORMATS = [float32, float64, *INTEGERS]


@jit(fastmath=SUM, forceinline=True)
def _shifts(x, top):  # type: ignore[no-untyped-def]
    found = ZERO
    for j in range(x.size):
        found += x[j] - top
    return found


@jit(parallel=True)
def _forward(x, target, ignore_index, smoothing, losses, lse):  # type: ignore[no-untyped-def]
    classes = x.shape[1]
    spread = T(smoothing / classes) if classes else ZERO
    hit = T(1 - smoothing)
    for i in prange(x.shape[0]):
        row, t = x[i], target[i]
        top = largest(row)
        log = np.log(sum_of_exp(row, top))
        lse[i] = top + log
        loss = ZERO
        if t != ignore_index:
            if hit:
                loss = hit * (log - (row[t] - top))
            if spread:
                loss += spread * (T(classes) * log - _shifts(row, top))
        losses[i] = loss


@jit(parallel=True)
def _gradient(x, g, target, lse, ignore_index, smoothing, dx):  # type: ignore[no-untyped-def]
    classes = x.shape[1]
    spread = T(smoothing / classes) if classes else ZERO
    for i in prange(x.shape[0]):
        row, out, t = x[i], dx[i], target[i]
        scale, log = g[i], lse[i]
        if t == ignore_index:
            out[:] = ZERO
        else:
            for j in range(row.size):
                out[j] = scale * (exp_of_shifted(row[j] - log) - spread)
            out[t] = scale * ((exp_of_shifted(row[t] - log) - spread) - T(1 - smoothing))


@kernel(spec.cross_entropy, "cpu/numba-rows", rank=20, formats=FORMATS)
def cross_entropy(
    logits: Array, target: Array, *, ignore_index: int | None, label_smoothing: float
) -> tuple[Array, Array]:
    spec.validate("cross_entropy", target, logits.shape[1], ignore_index)
    losses, lse = np.empty(len(target), logits.dtype), np.empty(len(target), logits.dtype)
    _forward(logits, target.astype(np.int64), spec.ignored(ignore_index), label_smoothing, losses, lse)
    return losses, lse


@kernel(spec.cross_entropy_gradient, "cpu/numba-rows", rank=20, formats=FORMATS, where=spec.one_format(0, 1, 3))
def cross_entropy_gradient(
    g: Array, logits: Array, target: Array, lse: Array, *, ignore_index: int | None, label_smoothing: float
) -> Array:
    spec.validate("cross_entropy_gradient", target, logits.shape[1], ignore_index)
    out = np.empty_like(logits, order="C")
    _gradient(logits, g, target.astype(np.int64), lse, spec.ignored(ignore_index), label_smoothing, out)
    return out
