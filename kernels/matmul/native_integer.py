"""Integers in C++. Those of 8 and 16 bits go through the integer engine's dot products into 32 bits, whose low ones are the
wrapped result, signed or not; wider ones, and single rows, multiply in vectors of their own width. Next limit: no CPU
multiplies words as fast as bytes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import INTEGERS, Array
from ulpgrad.kernels import native
from ulpgrad.kernels.matmul import spec
from ulpgrad.kernels.registry import Request, kernel


@kernel(spec.matmul, "cpu/native-integer", rank=55, formats=INTEGERS, build=True)
def matmul(request: Request) -> Any:
    words, product = native.module().words_matmul, native.module().integer_matmul_by()

    def run(a: Array, b: Array) -> Array:
        if a.itemsize > 2 or a.shape[-2] == 1:
            out: Array = words(a, b)
            return out
        signed = np.int8 if a.itemsize == 1 else np.int16
        return np.asarray(product(a.view(signed), b.view(signed)).astype(a.dtype))

    return run
