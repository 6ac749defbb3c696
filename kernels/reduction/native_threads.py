"""Rows over threads, each with its own way to memory. Next limit: memory; other axes are copied into rows first, and a single
row has a single thread."""

from __future__ import annotations

from ulpgrad.formats import Array, float32
from ulpgrad.kernels.reduction import spec, staircase
from ulpgrad.kernels.registry import kernel


@kernel(spec.sum, "cpu/native-threads", rank=34, formats=[float32], contiguous=True, where=spec.beside)
def total(x: Array, *, axis: spec.Axes, keepdims: bool) -> Array:
    return staircase.total("threads", x, axis, keepdims)
