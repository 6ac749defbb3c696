"""C++: one fixed tree of additions, in vector lanes, blocks and pairs, shared out over threads.

The tree depends on the shape alone, so sums have the same bits on any number of threads and any instruction set, and the
error grows with the logarithm of n beyond a block. Next limit: memory bandwidth.
"""

from __future__ import annotations

import math

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.reduction import spec
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.spec import Op


def reduce(kind: str, x: Array, axis: spec.Axes, center: Array | None = None) -> Array:
    """The reduction, one value per result, not yet in its shape."""
    values: Array = native.module().reduce(x, kind, *spec.split(x.shape, axis), center)
    return values


def _simple(op: Op) -> None:
    def run(x: Array, *, axis: spec.Axes, keepdims: bool) -> Array:
        return reduce(op.name, x, axis).reshape(spec.result_shape(x.shape, axis, keepdims))

    kernel(op, "cpu/native-tree", rank=50, formats=[float32, float64], contiguous=True, where=spec.beside)(run)


for _op in (spec.sum, spec.prod, spec.max, spec.min):
    _simple(_op)


@kernel(spec.mean, "cpu/native-tree", rank=50, formats=[float32, float64], contiguous=True, where=spec.beside)
def mean(x: Array, *, axis: spec.Axes, keepdims: bool) -> Array:
    total = reduce("sum", x, axis)
    total /= x.dtype.type(spec.count(x, axis))
    return total.reshape(spec.result_shape(x.shape, axis, keepdims))


@kernel(spec.var, "cpu/native-tree", rank=50, formats=[float32, float64], contiguous=True, where=spec.beside)
def var(x: Array, *, axis: spec.Axes, keepdims: bool, correction: float) -> Array:
    kind, n = x.dtype.type, spec.count(x, axis)
    center = reduce("sum", x, axis)
    center /= kind(n)
    squares = reduce("squares", x, axis, center)
    squares /= kind(max(n - correction, 0))
    return squares.reshape(spec.result_shape(x.shape, axis, keepdims))


def _extreme(op: Op, kind: str) -> None:
    """argmax and argmin down columns; along the last axis NumPy's own are vectorised already."""

    def where(request: Request) -> str | None:
        axis, shape = request.params["axis"], request.arrays[0].shape
        if not spec.index_layout(request.arrays[0], axis=axis)[0]:
            return "takes axes before the last"
        return None if shape[axis] < 2**31 else "counts to 2^31"

    def run(x: Array, *, axis: int, keepdims: bool) -> Array:
        found: Array = native.module().arg_reduce(x, kind, *spec.split(x.shape, (axis,)))
        return found.reshape(spec.result_shape(x.shape, (axis,), keepdims))

    kernel(op, "cpu/native-columns", rank=50, formats=[float32, float64], contiguous=True, where=where,
           idea="Every column keeps its best value and row in vector lanes, while memory is read row by row.")(run)  # fmt: skip


_extreme(spec.argmax, "max")
_extreme(spec.argmin, "min")


def _running(op: Op, kind: str) -> None:
    def run(x: Array, *, axis: int) -> Array:
        around = (math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))
        totals: Array = native.module().cumulate(x, kind, *around)
        return totals.reshape(x.shape)

    kernel(op, "cpu/native-running", rank=50, formats=[float32, float64], contiguous=True,
           idea="Four rows, or a vector of columns, side by side: a lone chain of additions waits for itself.")(run)  # fmt: skip


_running(spec.cumulative_sum, "sum")
_running(spec.cumulative_prod, "prod")
