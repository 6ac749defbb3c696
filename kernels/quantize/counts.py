"""What a conversion does to values, counted by the same loop that rounds, without writing anything."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ulpgrad.formats import Array, Counts, Float, Format
from ulpgrad.kernels import native
from ulpgrad.kernels.quantize.grid import float_refusal, grid, options


@cache
def native_grid(form: Float, rounding: str, overflow: str | None, subnormals: bool) -> Any:
    """The grid of a format under these options as the C++ functions take it."""
    return native.module().FloatGrid(**grid(form, rounding, overflow, subnormals)._asdict())


def tally(x: Array, form: Float, rounding: str, subnormals: bool, key: int, counter: int, random_bits: int) -> Any:
    """(overflowed, underflowed, flushed, nan, infinite) for contiguous float32 or float64 values, in C++."""
    mode, stream = options(rounding, counter, key, random_bits)
    return native.module().count_float(x, native_grid(form, rounding, None, subnormals), mode, stream)


def counted(x: Array, form: Format, **given: Any) -> Counts | None:
    """Counts of converting plain values; None where only the format's own `encode` counts."""
    if not isinstance(form, Float) or float_refusal(form) is not None or native.missing() is not None:
        return None
    if x.dtype not in (np.float32, np.float64):
        return None
    overflowed, underflowed, flushed, nan, _ = tally(np.ascontiguousarray(x), form, **given)
    return Counts(overflowed, underflowed, flushed, nan, x.size)


__all__ = ["counted", "native_grid", "tally"]
