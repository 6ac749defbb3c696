"""B is packed into units of two 16-bit values, so that one instruction multiplies both and adds. Next limit: each row of C is
read and written for every unit."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, int8
from ulpgrad.kernels.integer import spec, staircase
from ulpgrad.kernels.registry import kernel


@kernel(spec.integer_matmul, "cpu/native-pairs", rank=43, formats=[int8], where=staircase.refusal, contiguous=True)
def integer_matmul(a: Array, b: Array, *, accumulator: Any = None) -> Array:
    return staircase.product("pairs", a, b)
