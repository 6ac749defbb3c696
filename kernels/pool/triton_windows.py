"""Each value of a result is made by one lane, which looks at its window; each value of a gradient too: it looks up the windows
that it is in, so that nothing is added to memory that others add to.

Where a maximum was taken, only its place is known, not the windows: a first kernel notes the range of places of each row of
results, a second looks through the rows whose range meets its pixels. Images keep their layout, but for that gradient. Next
limit: overlapping windows read the images several times, from the cache.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from math import prod
from typing import Any

from ulpgrad.formats import bfloat16, float16, float32, float64, int64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv.geometry import Pair, output_size
from ulpgrad.kernels.conv.triton_operands import channels_last, given, images, steps
from ulpgrad.kernels.matmul.triton_epilogue import activate
from ulpgrad.kernels.pool import spec
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

FORMATS = (float32, float64, bfloat16, float16)
BLOCK = 512
PIXELS, PLACES = 128, 32  # compared with each other at once


@triton.jit
def _place(at, channels, height, width, LAST: tl.constexpr):
    """Image, channel, row and column of values in the order of their memory."""
    if LAST:
        pixel, channel = at // channels, at % channels
        image = pixel // (height * width)
    else:
        pixel, plane = at % (height * width), at // (height * width)
        channel, image = plane % channels, plane // channels
    return image, channel, (pixel // width % height).to(tl.int32), (pixel % width).to(tl.int32)


@triton.jit
def pool_max(
    y, places, x, count, channels, height, width, x_height, x_width, taps, taps_across, step_down, step_across, pad_down,
    pad_across, apart_down, apart_across, x_image, x_channel, x_row, x_column,
    ACTIVATION: tl.constexpr, LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    image, channel, row, column = _place(at, channels, height, width, LAST)
    x += image * x_image + channel * x_channel
    TYPE: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    best = tl.full((BLOCK,), -float("inf"), TYPE)
    where = tl.full((BLOCK,), -1, tl.int32)
    for tap in range(taps):
        i = row * step_down - pad_down + tap // taps_across * apart_down
        j = column * step_across - pad_across + tap % taps_across * apart_across
        real = (at < count) & (i >= 0) & (i < x_height) & (j >= 0) & (j < x_width)
        value = tl.load(x + i * x_row + j * x_column, mask=real, other=0).to(TYPE)
        is_more = (
            (value > best) | ((value != value) & (best == best)) | (where < 0)
        )  # NaN is more than all; the first stays
        best = tl.where(real & is_more, value, best)
        where = tl.where(real & is_more, i * x_width + j, where)
    tl.store(y + at, activate(best, ACTIVATION).to(y.dtype.element_ty), mask=at < count)
    tl.store(places + at, where.to(tl.int64), mask=at < count)


@triton.jit
def pool_mean(
    y, x, count, channels, height, width, x_height, x_width, taps_down, taps_across, step_down, step_across, pad_down,
    pad_across, x_image, x_channel, x_row, x_column, WITH_PADDING: tl.constexpr, LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    image, channel, row, column = _place(at, channels, height, width, LAST)
    x += image * x_image + channel * x_channel
    TYPE: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros((BLOCK,), TYPE)
    parts = tl.zeros((BLOCK,), tl.int32)
    for tap in range(taps_down * taps_across):
        i = row * step_down - pad_down + tap // taps_across
        j = column * step_across - pad_across + tap % taps_across
        real = (at < count) & (i >= 0) & (i < x_height) & (j >= 0) & (j < x_width)
        total += tl.load(x + i * x_row + j * x_column, mask=real, other=0).to(TYPE)
        parts += real.to(tl.int32)
    if WITH_PADDING:
        parts = tl.zeros((BLOCK,), tl.int32) + taps_down * taps_across
    tl.store(y + at, (total / tl.maximum(parts, 1).to(TYPE)).to(y.dtype.element_ty), mask=at < count)


@triton.jit
def pool_mean_gradient(
    dx, g, count, channels, height, width, g_height, g_width, taps_down, taps_across, step_down, step_across, pad_down,
    pad_across, g_image, g_channel, g_row, g_column, WITH_PADDING: tl.constexpr, LAST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    image, channel, row, column = _place(at, channels, height, width, LAST)
    g += image * g_image + channel * g_channel
    TYPE: tl.constexpr = tl.float64 if g.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros((BLOCK,), TYPE)
    for tap in range(taps_down * taps_across):
        top, left = row + pad_down - tap // taps_across, column + pad_across - tap % taps_across
        i, j = top // step_down, left // step_across
        real = (at < count) & (top >= 0) & (left >= 0) & (top % step_down == 0) & (left % step_across == 0)
        real = real & (i < g_height) & (j < g_width)
        value = tl.load(g + i * g_row + j * g_column, mask=real, other=0).to(TYPE)
        if WITH_PADDING:
            total += value / (taps_down * taps_across)
        else:
            tall = tl.minimum(top - pad_down + taps_down, height) - tl.maximum(top - pad_down, 0)
            wide = tl.minimum(left - pad_across + taps_across, width) - tl.maximum(left - pad_across, 0)
            total += value / tl.where(real, tall * wide, 1).to(TYPE)
    tl.store(dx + at, total.to(dx.dtype.element_ty), mask=at < count)


@triton.jit
def pool_ranges(ranges, places, width, BLOCK: tl.constexpr):
    """The least and the largest place in a row of results."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    least = tl.full((BLOCK,), 0x7FFFFFFFFFFFFFFF, tl.int64)
    largest = tl.full((BLOCK,), -1, tl.int64)
    for start in range(0, width, BLOCK):
        inside = start + at < width
        place = tl.load(places + row * width + start + at, mask=inside, other=-1)
        least = tl.minimum(least, tl.where(inside, place, least))
        largest = tl.maximum(largest, place)
    tl.store(ranges + row * 2, tl.min(least, 0))
    tl.store(ranges + row * 2 + 1, tl.max(largest, 0))


@triton.jit
def pool_max_gradient(dx, g, places, ranges, pixels, height, width, PIXELS: tl.constexpr, PLACES: tl.constexpr):
    blocks = tl.cdiv(pixels, PIXELS)
    plane = (tl.program_id(0) // blocks).to(tl.int64)
    first = tl.program_id(0) % blocks * PIXELS
    pixel, at = first + tl.arange(0, PIXELS), tl.arange(0, PLACES)
    TYPE: tl.constexpr = tl.float64 if g.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros((PIXELS,), TYPE)
    for row in range(height):
        line = plane * height + row
        if (tl.load(ranges + line * 2) < first + PIXELS) & (tl.load(ranges + line * 2 + 1) >= first):
            for start in range(0, width, PLACES):
                inside = start + at < width
                place = tl.load(places + line * width + start + at, mask=inside, other=-1)
                value = tl.load(g + line * width + start + at, mask=inside, other=0).to(TYPE)
                total += tl.sum(tl.where(place[None, :] == pixel[:, None], value[None, :], 0), 1)
    tl.store(dx + plane * pixels + pixel, total.to(dx.dtype.element_ty), mask=pixel < pixels)


def largest_of_windows(
    y: Any,
    x: Any,
    kernel_size: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    last: bool,
    activation: str | None = None,
) -> tuple[Any, Any]:
    """Fill y from x, and give the places."""
    places = images(y.shape[0], y.shape[1], y.shape[2:], "int64", last)
    launch(
        pool_max, (cdiv(y.size, BLOCK),), given(y), places, given(x), y.size, *y.shape[1:], *x.shape[2:], prod(kernel_size),
        kernel_size[1], *stride, *padding, *dilation, *steps(x), ACTIVATION=activation, LAST=last, BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return y, places


@kernel(spec.max_pool2d, "cuda/triton-windows", rank=40, formats=FORMATS)
def max_pool2d(x: Any, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> tuple[Any, Any]:
    last, size = channels_last(x), output_size(x.shape[2:], kernel_size, stride, padding, dilation)
    y = images(x.shape[0], x.shape[1], size, x.dtype, last)
    return largest_of_windows(y, x, kernel_size, stride, padding, dilation, last)


@kernel(spec.max_pool2d_gradient, "cuda/triton-windows", rank=40, formats=(*FORMATS, int64), contiguous=True)
def max_pool2d_gradient(g: Any, indices: Any, *, size: Pair) -> Any:
    xp, planes, pixels = gpu.xp(), prod(g.shape[:2]), prod(size)
    dx, ranges = xp.empty((*g.shape[:2], *size), g.dtype), xp.empty((planes * g.shape[2], 2), "int64")
    launch(pool_ranges, (planes * g.shape[2],), ranges, indices, g.shape[3], BLOCK=128, num_warps=1)
    launch(
        pool_max_gradient, (planes * cdiv(pixels, PIXELS),), given(dx), given(g), indices, ranges, pixels, *g.shape[2:],
        PIXELS=PIXELS, PLACES=PLACES, num_warps=4,
    )  # fmt: skip
    return dx


@kernel(spec.avg_pool2d, "cuda/triton-windows", rank=40, formats=FORMATS)
def avg_pool2d(x: Any, *, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool) -> Any:
    last, size = channels_last(x), output_size(x.shape[2:], kernel_size, stride, padding, (1, 1))
    y = images(x.shape[0], x.shape[1], size, x.dtype, last)
    launch(
        pool_mean, (cdiv(y.size, BLOCK),), given(y), given(x), y.size, *y.shape[1:], *x.shape[2:], *kernel_size, *stride,
        *padding, *steps(x), WITH_PADDING=count_include_pad, LAST=last, BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return y


@kernel(spec.avg_pool2d_gradient, "cuda/triton-windows", rank=40, formats=FORMATS)
def avg_pool2d_gradient(
    g: Any, *, size: Pair, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool
) -> Any:
    last = channels_last(g)
    dx = images(g.shape[0], g.shape[1], size, g.dtype, last)
    launch(
        pool_mean_gradient, (cdiv(dx.size, BLOCK),), given(dx), given(g), dx.size, *dx.shape[1:], *g.shape[2:], *kernel_size,
        *stride, *padding, *steps(g), WITH_PADDING=count_include_pad, LAST=last, BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return dx
