"""The definition in C++: each value of C is one chain of multiply-adds, a row of A times a column of B. Next limit: each
step down a column of B touches another cache line, and waits for the addition before it."""

from __future__ import annotations

from ulpgrad.formats import Array, float32
from ulpgrad.kernels.matmul import spec, staircase
from ulpgrad.kernels.registry import kernel


@kernel(spec.matmul, "cpu/native-loops", rank=41, formats=[float32], contiguous=True)
def matmul(a: Array, b: Array) -> Array:
    return staircase.multiply("loops", a, b)
