"""A and panels of B are copied into the order in which the tile reads them, padded with zeros at the edges. Next limit: in
matrices of thousands a panel of the whole depth leaves the L2 cache, and packed A and B take as much memory as they do."""

from __future__ import annotations

from ulpgrad.formats import Array, float32
from ulpgrad.kernels.matmul import spec, staircase
from ulpgrad.kernels.registry import kernel


@kernel(spec.matmul, "cpu/native-packed", rank=45, formats=[float32], contiguous=True)
def matmul(a: Array, b: Array) -> Array:
    return staircase.multiply("packed", a, b)
