"""C++ for integers and bools: exact in any order, so plain loops that the compiler turns into vectors; short rows are joined many
at a time, and narrow columns several rows at a time.

Next limit: memory bandwidth.
"""

from __future__ import annotations

from ulpgrad.formats import INTEGERS, Array, Format, bool_
from ulpgrad.kernels import native
from ulpgrad.kernels.reduction import spec
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.spec import Op


def _simple(op: Op, formats: list[Format]) -> None:
    def run(x: Array, *, axis: spec.Axes, keepdims: bool) -> Array:
        out: Array = native.module().reduce_integers(x, op.name, axis, keepdims)
        return out

    kernel(op, "cpu/native-integers", rank=50, formats=formats, contiguous=True, where=spec.beside)(run)


for _op in (spec.sum, spec.prod, spec.max, spec.min):
    _simple(_op, [bool_, *INTEGERS])
for _op in (spec.all, spec.any):
    _simple(_op, [bool_])


def _along(request: Request) -> str | None:
    x, axis = request.arrays[0], request.params["axis"]
    return "takes the last axis" if spec.index_layout(x, axis=axis)[0] else None


def _extreme(op: Op, kind: str) -> None:
    def run(x: Array, *, axis: int | None, keepdims: bool) -> Array:
        n = x.size if axis is None else x.shape[axis]
        found: Array = native.module().arg_reduce_integers(x, kind, x.size // n, n)
        return found.reshape(() if axis is None else spec.result_shape(x.shape, (axis,), keepdims))

    kernel(op, "cpu/native-integers", rank=50, formats=list(INTEGERS), contiguous=True, where=_along)(run)


_extreme(spec.argmax, "max")
_extreme(spec.argmin, "min")
