"""Blocks of A and B that fit the caches are copied into the order in which the tile reads them, padded with zeros at the edges
(Goto and van de Geijn, 2008). Next limit: one core."""

from __future__ import annotations

from ulpgrad.formats import Array, float32
from ulpgrad.kernels.matmul import spec, staircase
from ulpgrad.kernels.registry import kernel


@kernel(spec.matmul, "cpu/native-packed", rank=45, formats=[float32], contiguous=True)
def matmul(a: Array, b: Array) -> Array:
    return staircase.multiply("packed", a, b)
