"""Sums become codes part by part, as soon as a block of rows is multiplied and while it is in the cache, instead of in a pass
of their own. Next limit: the weights are packed anew in each call."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, Format
from ulpgrad.kernels import native
from ulpgrad.kernels.matmul import layout
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.requantize import spec


@kernel(spec.integer_linear, "cpu/native-linear", rank=60, formats=spec.LINEAR_FORMATS, contiguous=True)
def integer_linear(
    x: Array, weight: Array, multiplier: Array | None, shift: Array, bias: Array | None, *, accumulator: str,
    zero_point: int, low: int, high: int, ties: str, dtype: Format,
) -> Any:  # fmt: skip
    out = native.module().integer_linear(
        layout.rows(x), weight, multiplier, shift, bias,
        bits=64 if accumulator == "int64" else 32, zero_point=zero_point, low=low, high=high, even=ties == "even",
        dtype=dtype.storage,
    )  # fmt: skip
    return out.reshape(*x.shape[:-1], len(weight))
