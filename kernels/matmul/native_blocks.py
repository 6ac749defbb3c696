"""Blocks that fit the caches: a block of A stays in L2 while panels of B pass, a block of B in L3 (Goto and van de Geijn,
2008). It pays from 2048 on. Next limit: one core."""

from __future__ import annotations

from ulpgrad.formats import Array, float32
from ulpgrad.kernels.matmul import spec, staircase
from ulpgrad.kernels.registry import kernel


@kernel(spec.matmul, "cpu/native-blocks", rank=46, formats=[float32], contiguous=True)
def matmul(a: Array, b: Array) -> Array:
    return staircase.multiply("blocks", a, b)
