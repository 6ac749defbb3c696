"""Codes as floats, which BLAS multiplies: as long as no sum can pass the mantissa every step is exact, in whatever order, and so
are the whole numbers that the sums of such steps are added to.

Next limit: four bytes for each code, where instructions of eight bits have four times the lanes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.kernels.integer import spec
from ulpgrad.kernels.integer.accumulator import refuses_order
from ulpgrad.kernels.registry import kernel

FEWEST = 256  # products that float32 has to hold, or float64 is taken


def _steps(a: Any, b: Any) -> tuple[Any, int]:
    """A float's type, and how many products of codes of these types it holds exactly."""
    largest = spec.largest_product(a, b)
    single = (1 << 24) // largest
    return (np.float32, single) if single >= FEWEST else (np.float64, (1 << 53) // largest)


def product(a: Array, b: Array, accumulator: Any) -> Array:
    dtype = spec.result_dtype(accumulator)
    kind, step = _steps(a.dtype, b.dtype)
    left, right = a.astype(kind), b.astype(kind)
    total: Array | None = None
    for k in range(0, max(1, a.shape[-1]), step):
        sums = np.matmul(left[..., k : k + step], right[..., k : k + step, :])
        more = sums.astype(np.int64 if kind is np.float64 else np.int32).astype(dtype, copy=False)
        total = more if total is None else np.add(total, more, out=total)
    assert total is not None
    return total


@kernel(spec.integer_matmul, "cpu/numpy-exact", rank=35, formats=spec.FORMATS, where=refuses_order)
def integer_matmul(a: Array, b: Array, *, accumulator: Any = None) -> Array:
    return product(a, b, accumulator)


@kernel(spec.integer_conv2d, "cpu/numpy-exact", rank=35, formats=spec.FORMATS, where=refuses_order)
def integer_conv2d(x: Array, weight: Array, *, accumulator: Any = None, pad: int = 0, **geometry: Any) -> Array:
    return spec.conv2d_by_matmul(x, weight, **geometry, accumulator=accumulator, pad=pad, matmul=product)
