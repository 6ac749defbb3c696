"""A code of A times a row of B is added to a row of C: neighbours in memory, of which the compiler makes vectors. Next limit:
codes are widened to 32 bits before they are multiplied, one by one."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, int8
from ulpgrad.kernels.integer import spec, staircase
from ulpgrad.kernels.registry import kernel


@kernel(spec.integer_matmul, "cpu/native-rows", rank=42, formats=[int8], where=staircase.refusal, contiguous=True)
def integer_matmul(a: Array, b: Array, *, accumulator: Any = None) -> Array:
    return staircase.product("rows", a, b)
