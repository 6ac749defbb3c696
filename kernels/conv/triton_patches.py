"""Convolution as a product of patches and filters, where the matrix of patches is never in memory: a tile computes where its
pixels' patches lie and reads them from the images.

A row is a pixel of the result, a column one of its channels, and the depth runs over taps and then channels. The gradient of the
input is the same with taps counted backwards: one is there if the stride meets it. Images may have any layout;
results keep that of their input. Next limit: addresses are computed for every tile of every tap; the tensor memory accelerator
would fetch whole boxes of pixels, and with strides most taps of the gradient meet nothing.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.geometry import Pair, output_size
from ulpgrad.kernels.conv.triton_operands import (
    FORMATS,
    channels_last,
    filters,
    given,
    images,
    narrow_groups,
    steps,
    tile,
    too_large,
)
from ulpgrad.kernels.matmul.triton_epilogue import activate
from ulpgrad.kernels.pool.triton_windows import largest_of_windows
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton


@triton.jit
def conv_patches(
    y, x, filters, bias, pixels, height, width, channels, x_height, x_width, x_channels, taps_across, depth, step_down,
    step_across, pad_down, pad_across, apart_down, apart_across, meets_down, meets_across,
    y_image, y_channel, y_row, y_column, x_image, x_channel, x_row, x_column,
    MEETS: tl.constexpr, ACTIVATION: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """y [images, groups * channels, height, width] from x [images, groups * x_channels, x_height, x_width] and filters
    [groups, depth, channels]. One image has fewer than 2^31 values."""
    across = tl.cdiv(channels, N)
    down = tl.cdiv(pixels, M)
    column, row = tl.program_id(0) % across, tl.program_id(0) // across % down
    group = (tl.program_id(0) // across // down).to(tl.int64)
    pixel = row.to(tl.int64) * M + tl.arange(0, M)
    image = pixel // (height * width)
    top, left = (pixel // width % height).to(tl.int32), (pixel % width).to(tl.int32)
    first_row, first_column = top * step_down - pad_down, left * step_across - pad_across
    out = column * N + tl.arange(0, N)
    filters += group * depth * channels + out[None, :]
    x += group * x_channels * x_channel + image[:, None] * x_image
    from_first = (first_row * x_row + first_column * x_column)[:, None]
    TYPE: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    total = tl.zeros((M, N), TYPE)
    for start in range(0, depth, K):
        k = start + tl.arange(0, K)
        tap, channel = k // x_channels, k % x_channels
        i, j = tap // taps_across * apart_down, tap % taps_across * apart_across
        y_at, x_at = first_row[:, None] + i[None, :], first_column[:, None] + j[None, :]
        met = (y_at >= 0) & (x_at >= 0) & (pixel < pixels)[:, None] & (k < depth)[None, :]
        if MEETS > 1:  # only every so many places of y were multiplied with a tap
            met = met & (y_at % meets_down == 0) & (x_at % meets_across == 0)
            y_at, x_at = y_at // meets_down, x_at // meets_across
            offset = y_at * x_row + x_at * x_column + (channel * x_channel)[None, :]
        else:
            offset = from_first + (i * x_row + j * x_column + channel * x_channel)[None, :]
        met = met & (y_at < x_height) & (x_at < x_width)
        patch = tl.load(x + offset, mask=met, other=0)
        weight = tl.load(
            filters + k[:, None] * channels, mask=(k < depth)[:, None] & (out < channels)[None, :], other=0
        )
        total = tl.dot(patch, weight, total, input_precision=PRECISION, out_dtype=TYPE)
    if bias is not None:
        total += tl.load(bias + group * channels + out, mask=out < channels, other=0).to(TYPE)[None, :]
    total = activate(total, ACTIVATION)
    at = image * y_image + top * y_row + left * y_column
    tl.store(y + at[:, None] + (group * channels + out)[None, :] * y_channel, total.to(y.dtype.element_ty),
             mask=(pixel < pixels)[:, None] & (out < channels)[None, :])  # fmt: skip


def gather(
    y: Any, x: Any, matrix: Any, bias: Any, kernel_size: Pair, step: Pair, padding: Pair, apart: Pair, meets: Pair = (1, 1),
    activation: str | None = None,
) -> Any:  # fmt: skip
    """Fill y from x and the filters as a matrix of each group: place p of y and tap t meet at step * p - padding + apart * t,
    which is divided by `meets`, and nothing where that leaves a rest."""
    groups, depth, channels = matrix.shape
    pixels = y.shape[0] * y.shape[2] * y.shape[3]
    options = tile(pixels, channels, x)
    launch(
        conv_patches, (cdiv(pixels, options["M"]) * cdiv(channels, options["N"]) * groups,), given(y), given(x), given(matrix),
        None if bias is None else given(gpu.contiguous(bias)), pixels, *y.shape[2:], channels, *x.shape[2:],
        x.shape[1] // groups, kernel_size[1], depth, *step, *padding, *apart, *meets, *steps(y), *steps(x),
        MEETS=min(2, max(meets)), ACTIVATION=activation, **options,
    )  # fmt: skip
    return y


@kernel(spec.conv2d, "cuda/triton-patches", rank=40, formats=FORMATS, where=narrow_groups)
def conv2d(
    x: Any,
    weight: Any,
    bias: Any,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    activation: str | None = None,
) -> Any:
    size = output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    y = images(x.shape[0], weight.shape[0], size, x.dtype, channels_last(x))
    return gather(y, x, filters(weight, groups), bias, weight.shape[2:], stride, padding, dilation, (1, 1), activation)


@kernel(spec.conv2d_input_gradient, "cuda/triton-patches", rank=40, formats=FORMATS, where=narrow_groups)
def conv2d_input_gradient(
    g: Any, weight: Any, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Any:
    dx = images(g.shape[0], weight.shape[1] * groups, size, g.dtype, channels_last(g))
    matrix = filters(weight, groups, turned=True)
    before, back = (-padding[0], -padding[1]), (-dilation[0], -dilation[1])
    return gather(dx, g, matrix, None, weight.shape[2:], (1, 1), before, back, stride)


@kernel(spec.conv2d_max_pool, "cuda/triton-patches", rank=40, formats=FORMATS, where=too_large)
def conv2d_max_pool(
    x: Any,
    weight: Any,
    bias: Any,
    *,
    window: Pair,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    activation: str | None = None,
) -> tuple[Any, Any]:
    """Sums stay in the format that they are made in until the largest is known: rounded ones would be equal more often."""
    size, last = output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation), channels_last(x)
    wide = "float64" if x.dtype.name == "float64" else "float32"
    sums = images(x.shape[0], weight.shape[0], size, wide, last)
    gather(sums, x, filters(weight, 1), bias, weight.shape[2:], stride, padding, dilation)
    y = images(x.shape[0], weight.shape[0], (size[0] // window[0], size[1] // window[1]), x.dtype, last)
    return largest_of_windows(y, sums, window, window, (0, 0), (1, 1), last, activation)
