"""Convolution of codes on the matrix units (kernels/integer/cuda_matrix.py), whose sums become codes before they are written: no
accumulator passes through memory, but for those of 64 bits.

Next limit: a thread writes one code at a time, of one byte or two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad.formats import Format
from ulpgrad.formats.rounding import ROUNDINGS
from ulpgrad.kernels.integer import cuda_matrix
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.requantize import spec

ROUNDING = {"even": ROUNDINGS.index("nearest_even"), "up": len(ROUNDINGS)}  # as csrc/cuda/conv_codes.cuh numbers them


@kernel(
    spec.integer_conv2d_requantized, "cuda/cuda-matrix", rank=90, formats=spec.LINEAR_FORMATS, where=cuda_matrix.refusal,
    build=True,
)  # fmt: skip
def integer_conv2d_requantized(request: Request) -> Callable[..., Any]:
    exact = request.params["accumulator"] == "int64"

    def run(
        x: Any, weight: Any, multiplier: Any, shift: Any, bias: Any, *, accumulator: str, zero_point: int, low: int,
        high: int, ties: str, dtype: Format, pad: int = 0, **geometry: Any,
    ) -> Any:  # fmt: skip
        y = cuda_matrix.result_of(x, weight, dtype.storage, geometry)
        if y.size:
            codes = cuda_matrix.Codes(
                bias, multiplier, shift, low=low - zero_point, high=high - zero_point, rounding=ROUNDING[ties],
                wraps_sum=not exact, zero_point=zero_point,
            )  # fmt: skip
            cuda_matrix.Operands(x, weight, pad, geometry).convolve(y, exact, codes)
        return y

    return run
