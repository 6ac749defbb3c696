"""The definition in C++: one running sum, a double, since a long chain of float32 loses digits. Next limit: each addition waits
for the one before, three or four cycles, and a compiler may not change the order of sums."""

from __future__ import annotations

from ulpgrad.formats import Array, float32
from ulpgrad.kernels.reduction import spec, staircase
from ulpgrad.kernels.registry import kernel


@kernel(spec.sum, "cpu/native-loops", rank=31, formats=[float32], contiguous=True, where=spec.beside)
def total(x: Array, *, axis: spec.Axes, keepdims: bool) -> Array:
    return staircase.total("loops", x, axis, keepdims)
