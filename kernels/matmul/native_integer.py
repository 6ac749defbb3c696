"""Integers in C++. Those of 8 and 16 bits go through the integer engine's dot products into 32 bits, whose low ones are the
wrapped result, signed or not; wider ones, and single rows, multiply in vectors of their own width. Next limit: no CPU
multiplies words as fast as bytes."""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import INTEGERS, Array
from ulpgrad.kernels import native
from ulpgrad.kernels.matmul import spec
from ulpgrad.kernels.registry import kernel


@kernel(spec.matmul, "cpu/native-integer", rank=55, formats=INTEGERS)
def matmul(a: Array, b: Array) -> Array:
    if a.itemsize > 2 or a.shape[-2] == 1:
        return native.module().words_matmul(a, b)
    signed = np.int8 if a.itemsize == 1 else np.int16
    sums, _, _ = native.module().integer_matmul(a.view(signed), b.view(signed))
    return sums.astype(a.dtype)
