"""NumPy's own reductions: SIMD along contiguous axes, pairwise sums there, and little overhead on small arrays.

Along other axes NumPy adds floats one after the other, an error that grows with n: there, sums are taken over blocks of
128 rows first, so that it grows with n / 128 + 128. Next limit: one thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.formats import INTEGERS, Array, bool_, float32, float64
from ulpgrad.kernels.reduction import spec
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.spec import Op

FLOATS = [float32, float64]
REALS = [*INTEGERS, *FLOATS]
ALL = [bool_, *REALS]
BLOCK = 128


def blocked_sum(x: Array, axis: spec.Axes, keepdims: bool) -> Array:
    """Sum of floats over axes, in blocks along the first axis where NumPy would add row after row."""
    if len(axis) == 1 and x.shape[axis[0]] > 2 * BLOCK and x.strides[axis[0]] != x.itemsize:
        (a,) = axis
        starts = np.arange(0, x.shape[a], BLOCK)
        x = np.add.reduceat(x, starts, axis=a)
    return np.asarray(x.sum(axis=axis, keepdims=keepdims))


@kernel(spec.sum, "cpu/numpy-reduce", rank=10, formats=ALL)
def sum_(x: Array, *, axis: spec.Axes, keepdims: bool) -> Array:
    with np.errstate(all="ignore"):
        if x.dtype.kind == "f":
            return blocked_sum(x, axis, keepdims)
        return np.asarray(x.sum(axis=axis, keepdims=keepdims))


@kernel(spec.mean, "cpu/numpy-reduce", rank=10, formats=FLOATS)
def mean(x: Array, *, axis: spec.Axes, keepdims: bool) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(blocked_sum(x, axis, keepdims) / x.dtype.type(spec.count(x, axis)))


@kernel(spec.var, "cpu/numpy-reduce", rank=10, formats=FLOATS)
def var(x: Array, *, axis: spec.Axes, keepdims: bool, correction: float) -> Array:
    kind, n = x.dtype.type, spec.count(x, axis)
    with np.errstate(all="ignore"):
        d = x - blocked_sum(x, axis, True) / kind(n)
        return np.asarray(blocked_sum(np.square(d), axis, keepdims) / kind(max(n - correction, 0)))


def _plain(op: Op, method: Callable[..., Any]) -> None:
    """A rung that is a NumPy function and nothing else."""

    def run(x: Array, **params: Any) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(method(x, **params))

    kernel(op, "cpu/numpy-reduce", rank=10, formats=ALL)(run)


for _op, _method in ((spec.prod, np.prod), (spec.max, np.max), (spec.min, np.min), (spec.cumulative_sum, np.cumsum),
                     (spec.cumulative_prod, np.cumprod)):  # fmt: skip
    _plain(_op, _method)


def _quiet(op: Op, method: Callable[..., Any]) -> None:
    """As `_plain`, for what meets no events: nothing is switched, which would take longer than a few values do."""
    kernel(op, "cpu/numpy-reduce", rank=10, formats=ALL)(lambda x, **params: np.asarray(method(x, **params)))


for _op, _own in ((spec.all, np.logical_and.reduce), (spec.any, np.logical_or.reduce),
                     (spec.argmax, np.ndarray.argmax), (spec.argmin, np.ndarray.argmin)):  # fmt: skip
    _quiet(_op, _own)
