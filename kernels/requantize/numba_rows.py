"""One pass: each accumulator is loaded once, scaled and rounded in registers and stored as a code.

Next limit: one value at a time, since the compiler does not see that the factors fit 32 bits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ulpgrad.formats import Array, Format, int32, int64
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.requantize import spec


@jit(parallel=True)
def _run(
    x: Any, y: Any, multiplier: Any, shift: Any, bias: Any, zero_point: Any, low: Any, high: Any, even: Any
) -> None:
    outer, channels, inner = x.shape
    for row in prange(outer * channels):
        i, c = row // channels, row % channels
        amount, factor = np.int64(shift[c]), np.int64(multiplier[c])
        before: Any = max(amount - 1, 0)
        odd_only = (np.int64(1) << before) - 1 if even else np.int64(0)
        for j in range(inner):
            total = np.int64(x.dtype.type(x[i, c, j] + bias[c])) * factor
            whole = total >> amount
            if amount > 0:
                last = (total >> before) & 1
                if even and (total & odd_only) == 0:
                    last &= whole
                whole += last
            y[i, c, j] = min(max(whole, low), high) + zero_point


@kernel(spec.requantize, "cpu/numba-rows", rank=30, formats=(int32, int64), contiguous=True)
def requantize(
    x: Array, multiplier: Array | None, shift: Array, bias: Array | None, *, axis: int, zero_point: int, low: int,
    high: int, ties: str, dtype: Format,
) -> Array:  # fmt: skip
    y = np.empty(x.shape, dtype.storage)
    channels = x.shape[axis]
    shape = (math.prod(x.shape[:axis]), channels, math.prod(x.shape[axis + 1 :]))
    factors = np.ones(channels, np.int32) if multiplier is None else multiplier
    offsets = np.zeros(channels, x.dtype) if bias is None else bias
    _run(x.reshape(shape), y.reshape(shape), factors, shift, offsets, zero_point, low - zero_point, high - zero_point,
         ties == "even")  # fmt: skip
    return y
