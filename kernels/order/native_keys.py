"""C++: values become unsigned keys of the same order. topk is one pass that keeps candidates, searches go in step so that
their loads overlap, argsort and unique are radix sorts of keys with their positions. 16-bit floats are widened.

Next limit: a line is sorted by one thread, in passes over memory.
"""

from __future__ import annotations

from ulpgrad.formats import INTEGERS, Array, bool_, float32, float64
from ulpgrad.kernels import memory, native
from ulpgrad.kernels.order import spec
from ulpgrad.kernels.registry import kernel

TAKEN = [float32, float64, *INTEGERS, bool_]


@kernel(spec.argsort, "cpu/native-radix", rank=50, formats=TAKEN)
def argsort(x: Array, *, axis: int, descending: bool) -> Array:
    positions: Array = native.module().argsort(x, axis, descending)
    return positions


@kernel(spec.topk, "cpu/native-candidates", rank=50, formats=TAKEN)
def topk(x: Array, *, k: int, axis: int, largest: bool) -> Array:
    positions: Array = native.module().topk(x, k, axis, largest)
    return positions


@kernel(spec.searchsorted, "cpu/native-in-step", rank=50, formats=TAKEN, contiguous=True)
def searchsorted(sorted: Array, values: Array, *, side: str) -> Array:
    positions: Array = native.module().searchsorted(sorted, values, side == "right")
    return positions


@kernel(spec.unique, "cpu/native-radix", rank=50, formats=TAKEN, contiguous=True)
def unique(x: Array) -> tuple[Array, ...]:
    flat = x.reshape(-1)
    first, inverse, counts = native.module().unique(flat)
    values = memory.empty(first.shape, flat.dtype)
    return flat.take(first, out=values, mode="clip"), first, inverse.reshape(x.shape), counts
