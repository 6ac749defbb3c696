"""The rows of a window are folded first, a whole line of the image at a time, then its columns: both loops are vector code.

Next limit: reading every second code of a line uses half of each load.
"""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array
from ulpgrad.kernels import native
from ulpgrad.kernels.adaptive_pool.spec import alike
from ulpgrad.kernels.conv.geometry import Pair
from ulpgrad.kernels.integer_pool import spec
from ulpgrad.kernels.registry import Request, kernel


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


def are_alike(request: Request) -> str | None:
    """Why the windows of a pooling to a given size cannot be those of one by a kernel; None if they can."""
    size, output_size = request.arrays[0].shape[2:], request.params["output_size"]
    window = alike(size, output_size)
    if window is None:
        return f"takes windows that are all alike, not {size} to {output_size}"
    if window[0] * window[1] > spec.LARGEST_WINDOW:
        return f"takes windows of up to {spec.LARGEST_WINDOW} values, not {window}"
    return None


@kernel(
    spec.integer_adaptive_avg_pool2d, "cpu/native-rows", rank=60, formats=spec.CODES, contiguous=True, where=are_alike
)
def integer_adaptive_avg_pool2d(x: Array, *, output_size: Pair, ties: str) -> Any:
    size = alike(x.shape[2:], output_size)
    return native.module().integer_avg_pool2d(
        x, kernel_size=size, stride=size, padding=(0, 0), count_include_pad=True, padding_value=0, even=ties == "even"
    )
