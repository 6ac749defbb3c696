"""Three loops in C++, one sum at a time: B is read down its columns, a line of memory for each code. Next limit: memory."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, int8
from ulpgrad.kernels.integer import spec, staircase
from ulpgrad.kernels.registry import kernel


@kernel(spec.integer_matmul, "cpu/native-loops", rank=41, formats=[int8], where=staircase.refusal, contiguous=True)
def integer_matmul(a: Array, b: Array, *, accumulator: Any = None) -> Array:
    return staircase.product("loops", a, b)
