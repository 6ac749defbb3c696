"""The rows of a window are folded first, a whole line of the image at a time, then its columns: both loops are vector code.

Next limit: reading every second code of a line uses half of each load.
"""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array
from ulpgrad.kernels import native
from ulpgrad.kernels.conv.geometry import Pair
from ulpgrad.kernels.integer_pool import spec
from ulpgrad.kernels.registry import kernel


@kernel(spec.integer_max_pool2d, "cpu/native-rows", rank=60, formats=spec.CODES, contiguous=True)
def integer_max_pool2d(x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Any:
    return native.module().integer_max_pool2d(
        x, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation
    )


@kernel(spec.integer_avg_pool2d, "cpu/native-rows", rank=60, formats=spec.CODES, contiguous=True)
def integer_avg_pool2d(
    x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool, padding_value: int, ties: str
) -> Any:
    return native.module().integer_avg_pool2d(
        x, kernel_size=kernel_size, stride=stride, padding=padding, count_include_pad=count_include_pad,
        padding_value=padding_value, even=ties == "even",
    )  # fmt: skip
