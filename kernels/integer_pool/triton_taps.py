"""A program takes a row of windows and goes through their taps: codes are read from the image, where neighbours share them in
cache, and the maximum or the sum stays in registers.

Next limit: each code is read once for every window that it lies in.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv.geometry import Pair, output_size
from ulpgrad.kernels.integer_pool import spec
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

BLOCK = 256


@triton.jit
def _pool(
    x, out, blocks, height, width, rows, columns, taps_down, taps_across, step_down, step_across, pad_down, pad_across,
    gap_down, gap_across, lowest, padding_value,
    MAXIMUM: tl.constexpr, WITH_PADDING: tl.constexpr, EVEN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    place = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    mask = place < rows * columns
    window_row = place // columns
    top = window_row * step_down - pad_down
    left = (place - window_row * columns) * step_across - pad_across
    x += plane * height * width
    out += plane * rows * columns
    found = tl.zeros((BLOCK,), tl.int32)
    if MAXIMUM:
        found += lowest
    count = tl.zeros((BLOCK,), tl.int32)
    i = 0
    while i < taps_down:
        row = top + i * gap_down
        j = 0
        while j < taps_across:
            column = left + j * gap_across
            there = mask & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            code = tl.load(x + row.to(tl.int64) * width + column, mask=there, other=0).to(tl.int32)
            if MAXIMUM:
                found = tl.maximum(found, tl.where(there, code, lowest))
            else:
                found += tl.where(there, code, padding_value)
                count += there.to(tl.int32)
            j += 1
        i += 1
    if MAXIMUM == 0:
        if WITH_PADDING:
            count = tl.zeros((BLOCK,), tl.int32) + taps_down * taps_across
        doubled, by = 2 * found + count, 2 * tl.maximum(count, 1)  # windows are so small that 32 bits hold this
        found = doubled // by  # toward zero
        found -= ((found * by != doubled) & (doubled < 0)).to(tl.int32)
        if EVEN:
            found -= ((found * by == doubled) & ((found & 1) == 1)).to(tl.int32)
    tl.store(out + place, found.to(out.dtype.element_ty), mask=mask)


def _pooled(
    x: Any, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, padding_value: int, **how: bool
) -> Any:
    size = output_size(x.shape[2:], kernel_size, stride, padding, dilation)
    out = gpu.xp().empty((*x.shape[:2], *size), x.dtype)
    blocks = cdiv(size[0] * size[1], BLOCK)
    launch(
        _pool, (x.shape[0] * x.shape[1] * blocks,), x, out, blocks, *x.shape[2:], *size, *kernel_size, *stride, *padding,
        *dilation, int(np.iinfo(x.dtype).min), padding_value, BLOCK=BLOCK, num_warps=4, **how,
    )  # fmt: skip
    return out


@kernel(spec.integer_max_pool2d, "cuda/triton-taps", rank=40, formats=spec.CODES, contiguous=True)
def integer_max_pool2d(x: Any, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Any:
    return _pooled(x, kernel_size, stride, padding, dilation, 0, MAXIMUM=True, WITH_PADDING=False, EVEN=False)


@kernel(spec.integer_avg_pool2d, "cuda/triton-taps", rank=40, formats=spec.CODES, contiguous=True)
def integer_avg_pool2d(
    x: Any, *, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool, padding_value: int, ties: str
) -> Any:
    return _pooled(x, kernel_size, stride, padding, spec.ONE, padding_value if count_include_pad else 0, MAXIMUM=False,
                   WITH_PADDING=count_include_pad, EVEN=ties == "even")  # fmt: skip
