"""A tile of C stays in registers while k runs, and its rows share what is loaded: two vectors of B serve all rows, a value
of A both vectors; sixteen loads for 28 FMAs with AVX-512. Next limit: fourteen streams of A, and between two steps of B a
jump of a whole row, which costs TLB entries and cache sets; and edges that fill no tile."""

from __future__ import annotations

from ulpgrad.formats import Array, float32
from ulpgrad.kernels.matmul import spec, staircase
from ulpgrad.kernels.registry import kernel


@kernel(spec.matmul, "cpu/native-tile", rank=44, formats=[float32], contiguous=True)
def matmul(a: Array, b: Array) -> Array:
    return staircase.multiply("tile", a, b)
