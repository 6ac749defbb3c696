"""One pass: each accumulator is loaded once, scaled and rounded in registers and stored as a code, in straight-line code that
LLVM turns into vectors of 64 bits.

Next limit: 64-bit lanes for 32-bit numbers, before the product and after the shift.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ulpgrad.formats import Array, Format, int32, int64
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.requantize import spec


@jit(forceinline=True)
def _code(total: Any, factor: Any, shift: Any, up: Any, low: Any, high: Any, zero_point: Any) -> Any:
    """Rounded by the last bit that goes, since a half added before the shift could overflow. up: 1 for ties, else 0."""
    product: Any = np.int64(total) * np.int64(factor)
    amount: Any = np.int64(shift)
    whole, some = product >> amount, min(amount, 1)
    halves = product >> (amount - some)
    rest = (product - (halves << (amount - some))) | up
    last = halves & some
    whole += last if rest != 0 else last & whole
    return min(max(whole, low), high) + zero_point


@jit(parallel=True)
def _along(x: Any, y: Any, factor: Any, shift: Any, bias: Any, up: int, low: int, high: int, zero_point: int) -> None:
    """Channels in the rows."""
    for row in prange(len(x)):
        line, out = x[row], y[row]
        for c in range(len(line)):
            total = x.dtype.type(line[c] + bias[c])
            out[c] = _code(total, factor[c], shift[c], up, low, high, zero_point)


@jit(parallel=True)
def _across(x: Any, y: Any, factor: Any, shift: Any, bias: Any, up: int, low: int, high: int, zero_point: int) -> None:
    """A row of one channel after the other."""
    for row in prange(len(x)):
        line, out, c = x[row], y[row], row % len(shift)
        for i in range(len(line)):
            total = x.dtype.type(line[i] + bias[c])
            out[i] = _code(total, factor[c], shift[c], up, low, high, zero_point)


@kernel(spec.requantize, "cpu/numba-rows", rank=30, formats=(int32, int64), contiguous=True)
def requantize(
    x: Array, multiplier: Array | None, shift: Array, bias: Array | None, *, axis: int, zero_point: int, low: int,
    high: int, ties: str, dtype: Format,
) -> Array:  # fmt: skip
    y = np.empty(x.shape, f"i{dtype.itemsize}")  # unsigned codes have the same bits
    channels, inner = x.shape[axis], math.prod(x.shape[axis + 1 :])
    factors = np.ones(channels, np.int32) if multiplier is None else multiplier
    offsets = np.zeros(channels, x.dtype) if bias is None else bias
    run, length = (_along, channels) if inner == 1 else (_across, inner)
    if x.size:
        run(x.reshape(-1, length), y.reshape(-1, length), factors, shift, offsets, int(ties == "up"), low - zero_point,
            high - zero_point, zero_point)  # fmt: skip
    return y.view(dtype.storage)
