"""One tap of the window at a time, for all images at once: a view of every stride-th pixel meets what was seen before.

Next limit: each tap reads and writes the whole result, and NumPy's strided loops are not vector code.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.kernels.adaptive_pool.spec import spans
from ulpgrad.kernels.conv.geometry import Pair, output_size
from ulpgrad.kernels.integer_pool import spec
from ulpgrad.kernels.registry import kernel


def _taps(x: Array, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, value: int) -> Iterator[Array]:
    """For each place in the window, what all windows see there: [n, c, oh, ow]."""
    rows, columns = output_size(x.shape[2:], kernel, stride, padding, dilation)
    if padding != (0, 0):
        x = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)), constant_values=value)
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            seen = x[:, :, i * dilation[0] :: stride[0], j * dilation[1] :: stride[1]]
            yield seen[:, :, :rows, :columns]


@kernel(spec.integer_max_pool2d, "cpu/numpy-taps", rank=10, formats=spec.CODES)
def integer_max_pool2d(x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Array:
    taps = _taps(x, kernel_size, stride, padding, dilation, np.iinfo(x.dtype).min)
    best = next(taps).copy()
    for seen in taps:
        np.maximum(best, seen, out=best)
    return best


@kernel(spec.integer_avg_pool2d, "cpu/numpy-taps", rank=10, formats=spec.CODES)
def integer_avg_pool2d(
    x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool, padding_value: int, ties: str
) -> Array:
    geometry = (kernel_size, stride, padding, spec.ONE)
    taps = _taps(x, *geometry, padding_value if count_include_pad else 0)
    sums = next(taps).astype(np.int32)
    for seen in taps:
        sums += seen
    counts: Array = np.asarray(prod(kernel_size), np.int32)
    if not count_include_pad and padding != (0, 0):
        counts = sum(_taps(np.ones((1, 1, *x.shape[2:]), np.int32), *geometry, 0), start=np.zeros((), np.int32))
    return spec.rounded_mean(sums, counts, ties).astype(x.dtype)


@kernel(
    spec.integer_adaptive_avg_pool2d,
    "cpu/numpy-running",
    rank=10,
    formats=spec.CODES,
    idea="Running sums along both axes, of which a window is a difference: every code is added twice, however windows overlap.",
)
def integer_adaptive_avg_pool2d(x: Array, *, output_size: Pair, ties: str) -> Array:
    sums, counts = x, np.ones((), np.int64)
    for axis, count in zip((2, 3), output_size, strict=True):
        first, end = np.asarray(spans(x.shape[axis], count)).T
        before = np.zeros((*sums.shape[:axis], 1, *sums.shape[axis + 1 :]), np.int64)
        running = np.concatenate((before, np.cumsum(sums, axis, np.int64)), axis)
        sums = np.take(running, end, axis) - np.take(running, first, axis)
        counts = counts[..., None] * (end - first)
    return spec.rounded_mean(sums, counts, ties).astype(x.dtype)
