"""Axes that do not lie side by side, as in the gradient of a convolution's bias: one group of neighbours after the other, the
last first, each by the C++ tree.

Next limit: memory bandwidth.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.reduction import spec
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.spec import Op

FORMATS = [float32, float64]  # what lies between two groups is rounded


def _last_group(shape: tuple[int, ...], axis: spec.Axes) -> spec.Axes:
    """The last of the axes that lie side by side; axes of size 1 part nothing."""
    axes = sorted(a for a in axis if shape[a] != 1)
    first = axes[-1]
    while first - 1 in axes or (first > axes[0] and shape[first - 1] == 1):
        first -= 1
    return tuple(a for a in axes if a >= first)


def _reduced(kind: str, x: Array, axis: spec.Axes, keepdims: bool) -> Array:
    reduce = native.module().reduce
    while not spec.side_by_side(x, axis=axis):
        x = reduce(x, kind, _last_group(x.shape, axis), True)
    out: Array = reduce(x, kind, axis, keepdims)
    return out


def _simple(op: Op) -> None:
    def run(x: Array, *, axis: spec.Axes, keepdims: bool) -> Array:
        return _reduced(op.name, x, axis, keepdims)

    kernel(op, "cpu/native-apart", rank=45, formats=FORMATS, contiguous=True)(run)


for _op in (spec.sum, spec.prod, spec.max, spec.min):
    _simple(_op)


@kernel(spec.mean, "cpu/native-apart", rank=45, formats=FORMATS, contiguous=True)
def mean(x: Array, *, axis: spec.Axes, keepdims: bool) -> Array:
    total = _reduced("sum", x, axis, keepdims)
    with np.errstate(all="ignore"):
        total /= x.dtype.type(spec.count(x, axis))
    return total
