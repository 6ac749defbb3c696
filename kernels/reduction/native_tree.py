"""C++: one fixed tree of additions, in vector lanes, blocks and pairs, shared out over threads.

The tree depends on the shape alone, so sums have the same bits on any number of threads and any instruction set (variances
too, but for the portable one: only there is a square rounded before it is added), and the error grows with the logarithm of n
beyond a block. 16-bit floats are widened as they are read, and results rounded once. Next limit: memory bandwidth.
"""

from __future__ import annotations

from ulpgrad.formats import Array, bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.reduction import spec
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.spec import Op

FORMATS = [float16, bfloat16, float32, float64]


def _simple(op: Op) -> None:
    def run(x: Array, *, axis: spec.Axes, keepdims: bool) -> Array:
        out: Array = native.module().reduce(x, op.name, axis, keepdims)
        return out

    kernel(op, "cpu/native-tree", rank=50, formats=FORMATS, contiguous=True, where=spec.beside)(run)


for _op in (spec.sum, spec.mean, spec.prod, spec.max, spec.min):
    _simple(_op)


@kernel(spec.var, "cpu/native-tree", rank=50, formats=FORMATS, contiguous=True, where=spec.beside)
def var(x: Array, *, axis: spec.Axes, keepdims: bool, correction: float) -> Array:
    out: Array = native.module().variance(x, axis, keepdims, correction)
    return out


def _extreme(op: Op, kind: str) -> None:
    def run(x: Array, *, axis: int | None, keepdims: bool) -> Array:
        if axis is None:
            return native.module().arg_reduce(x, kind, 1, x.size, 1).reshape(())
        found: Array = native.module().arg_reduce(x, kind, *spec.split(x.shape, (axis,)))
        return found.reshape(spec.result_shape(x.shape, (axis,), keepdims))

    kernel(op, "cpu/native-columns", rank=50, formats=FORMATS, contiguous=True, where=spec.index_fits,
           idea="Every column keeps its best value and row in vector lanes, while memory is read row by row; along a run the "
           "best block is found first.")(run)  # fmt: skip


_extreme(spec.argmax, "max")
_extreme(spec.argmin, "min")


def _running(op: Op, kind: str) -> None:
    def run(x: Array, *, axis: int) -> Array:
        totals: Array = native.module().cumulate(x, kind, *spec.split(x.shape, (axis,)))
        return totals.reshape(x.shape)

    kernel(op, "cpu/native-running", rank=50, formats=FORMATS, contiguous=True,
           idea="Four rows, or a vector of columns, side by side: a lone chain of additions waits for itself.")(run)  # fmt: skip


_running(spec.cumulative_sum, "sum")
_running(spec.cumulative_prod, "prod")
