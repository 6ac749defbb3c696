"""Whole arrays at a time in int64. The quotient is rounded from its last bit, so that nothing is added that could overflow.

Next limit: each of about ten passes moves eight bytes per value.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array, Format, int32, int64
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.requantize import spec


@kernel(spec.requantize, "cpu/numpy-whole", rank=10, formats=(int32, int64))
def requantize(
    x: Array, multiplier: Array | None, shift: Array, bias: Array | None, *, axis: int, zero_point: int, low: int,
    high: int, ties: str, dtype: Format,
) -> Array:  # fmt: skip
    total = x if bias is None else x + spec.along(bias, axis, x.ndim)
    total = total.astype(np.int64)
    if multiplier is not None:
        total *= spec.along(multiplier, axis, x.ndim)
    amount = spec.along(shift.astype(np.int64), axis, x.ndim)
    before = np.maximum(amount - 1, 0)
    whole, last = total >> amount, (total >> before) & 1 & (amount > 0)
    if ties == "even":
        more = total & ((np.int64(1) << before) - 1)  # below the last bit
        last &= (more != 0) | (whole & 1)
    whole += last  # at most 2^62 for a shift of 1 or more; without a shift nothing is added
    np.clip(whole, low - zero_point, high - zero_point, out=whole)
    whole += zero_point
    return whole.astype(dtype.storage)
