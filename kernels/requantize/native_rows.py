"""Vector code per instruction set: from a shift of 33 on only the product is 64 bits wide, and its upper
half is shifted.

Next limit: four bytes are read for each code that is written; only the product's own kernel could save that.
"""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, Format, int32, int64
from ulpgrad.kernels import native
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.requantize import spec


@kernel(spec.requantize, "cpu/native-rows", rank=60, formats=(int32, int64), contiguous=True)
def requantize(
    x: Array, multiplier: Array | None, shift: Array, bias: Array | None, *, axis: int, zero_point: int, low: int,
    high: int, ties: str, dtype: Format,
) -> Any:  # fmt: skip
    return native.module().requantize(
        x, multiplier, shift, bias, axis=axis, zero_point=zero_point, low=low, high=high, even=ties == "even",
        dtype=dtype.storage,
    )  # fmt: skip
