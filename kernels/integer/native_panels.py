"""Both operands are packed as the tile reads them, front to back. Next limit: one core, and vectors of 16 bytes."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, int8
from ulpgrad.kernels.integer import spec, staircase
from ulpgrad.kernels.registry import kernel


@kernel(spec.integer_matmul, "cpu/native-panels", rank=45, formats=[int8], where=staircase.refusal, contiguous=True)
def integer_matmul(a: Array, b: Array, *, accumulator: Any = None) -> Array:
    return staircase.product("panels", a, b)
