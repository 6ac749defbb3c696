"""Rows over threads. Next limit: memory; other axes and formats are left to the rung above, by the same loops."""

from __future__ import annotations

from ulpgrad.formats import Array, float32
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.softmax import spec
from ulpgrad.kernels.softmax.rows import along_last, by_rung


@kernel(spec.softmax, "cpu/native-threads", rank=46, formats=[float32])
def softmax(x: Array, *, axis: int) -> Array:
    return along_last(by_rung("threads"), (x,), axis)
