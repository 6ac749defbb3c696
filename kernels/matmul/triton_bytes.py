"""Integers of 8 and 16 bits through the tensor cores, which multiply bytes into sums of 32 bits: their low bits are the wrapped
result, signed or not. The kernel is that of the integer products (kernels/integer/triton_bytes.py).

Next limit: 16-bit codes take four byte products, of which the highest does not reach the result.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ulpgrad.formats import int8, int16, uint8, uint16
from ulpgrad.kernels.integer import triton_bytes
from ulpgrad.kernels.matmul import spec, triton_operands as operands
from ulpgrad.kernels.registry import Request, kernel


def run(product: operands.Product) -> Any:
    """The low bits of the product in 32 bits."""
    a, b, out = product.a, product.b, product.result()
    if product.form is uint16:
        a, b = a.view(np.int16), b.view(np.int16)
    signed = dataclasses.replace(product, a=a, b=b)
    triton_bytes.launch_tiles(
        triton_bytes.multiply, signed, False, (out, None, a, b, 0, 0), SHIFT=0, ROUNDING=None, WRAP=False
    )  # fmt: skip
    return out


@kernel(spec.matmul, "cuda/triton-bytes", rank=55, formats=(int8, uint8, int16, uint16), build=True)
def matmul(request: Request) -> Any:
    return operands.matmul_by(run, request)
