"""The gradient of the filters as a product over pixels, cut into pieces that many programs sum at once.

A row is an output channel, a column a tap of an input channel, whose pixels are found as in the forward pass. Each piece writes
its sums; a second pass adds the pieces in their order, so that bits repeat. Next limit: pieces are written and read once more,
and every column of tiles reads the gradient again.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from math import prod
from typing import Any

from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.geometry import Pair
from ulpgrad.kernels.conv.triton_operands import FORMATS, given, narrow_groups, steps, tile
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

PROGRAMS = 264  # that a GPU has room for at once: pieces are made until there are so many


@triton.jit
def conv_weights(
    parts, g, x, pixels, length, height, width, outputs, inputs, taps, taps_across, x_height, x_width, step_down, step_across,
    pad_down, pad_across, apart_down, apart_across, g_image, g_channel, g_row, g_column, x_image, x_channel, x_row, x_column,
    groups, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """parts [pieces, groups, outputs, taps * inputs]: a piece sums `length` pixels."""
    columns = taps * inputs
    across, down = tl.cdiv(columns, N), tl.cdiv(outputs, M)
    tile = tl.program_id(0) % (across * down)
    which = (tl.program_id(0) // (across * down)).to(tl.int64)
    group, piece = which % groups, which // groups
    out = tile // across * M + tl.arange(0, M)
    column = tile % across * N + tl.arange(0, N)
    tap, channel = column // inputs, column % inputs
    i, j = tap // taps_across * apart_down - pad_down, tap % taps_across * apart_across - pad_across
    g += group * outputs * g_channel + out[:, None] * g_channel
    x += group * inputs * x_channel
    from_tap = i * x_row + j * x_column + channel * x_channel
    TYPE: tl.constexpr = parts.dtype.element_ty
    total = tl.zeros((M, N), TYPE)
    for start in range(0, length, K):
        pixel = piece * length + start + tl.arange(0, K)
        inside = (pixel < pixels) & (start + tl.arange(0, K) < length)
        image = pixel // (height * width)
        top, left = (pixel // width % height).to(tl.int32), (pixel % width).to(tl.int32)
        grad = tl.load(g + (image * g_image + top * g_row + left * g_column)[None, :],
                       mask=(out < outputs)[:, None] & inside[None, :], other=0)  # fmt: skip
        y_at, x_at = (top * step_down)[:, None] + i[None, :], (left * step_across)[:, None] + j[None, :]
        met = (
            (y_at >= 0)
            & (y_at < x_height)
            & (x_at >= 0)
            & (x_at < x_width)
            & inside[:, None]
            & (column < columns)[None, :]
        )
        place = image * x_image + top * step_down * x_row + left * step_across * x_column
        patch = tl.load(x + place[:, None] + from_tap[None, :], mask=met, other=0)
        total = tl.dot(grad, patch, total, input_precision=PRECISION, out_dtype=TYPE)
    at = (which * outputs + out)[:, None] * columns + column[None, :]
    tl.store(parts + at, total, mask=(out < outputs)[:, None] & (column < columns)[None, :])


@triton.jit
def conv_weights_sum(dw, parts, count, pieces, taps, inputs, BLOCK: tl.constexpr):
    """dw [outputs, inputs, taps] from parts [pieces, outputs, taps, inputs], in the order of the pieces."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), parts.dtype.element_ty)
    source = at // (taps * inputs) * (taps * inputs) + at % taps * inputs + at // taps % inputs
    for _ in range(pieces):
        total += tl.load(parts + source, mask=at < count, other=0)
        source += count
    tl.store(dw + at, total.to(dw.dtype.element_ty), mask=at < count)


@kernel(spec.conv2d_weight_gradient, "cuda/triton-patches", rank=40, formats=FORMATS, where=narrow_groups)
def conv2d_weight_gradient(
    g: Any, x: Any, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Any:
    xp, outputs, inputs, taps = gpu.xp(), g.shape[1] // groups, x.shape[1] // groups, prod(size)
    pixels = g.shape[0] * prod(g.shape[2:])
    options = tile(outputs, taps * inputs, x)
    tiles = cdiv(outputs, options["M"]) * cdiv(taps * inputs, options["N"]) * groups
    pieces = max(1, min(PROGRAMS // max(1, tiles), cdiv(pixels, 16 * options["K"])))
    length = cdiv(cdiv(pixels, pieces), options["K"]) * options["K"]
    form = "float64" if g.dtype.name == "float64" else "float32"
    parts = xp.empty((pieces, groups, outputs, taps, inputs), form)
    launch(
        conv_weights, (tiles * pieces,), parts, given(g), given(x), pixels, length, *g.shape[2:], outputs, inputs, taps,
        size[1], *x.shape[2:], *stride, *padding, *dilation, *steps(g), *steps(x), groups, **options,
    )  # fmt: skip
    dw = xp.empty((g.shape[1], inputs, *size), g.dtype)
    launch(
        conv_weights_sum,
        (cdiv(dw.size, 1024),),
        given(dw),
        parts,
        dw.size,
        pieces,
        taps,
        inputs,
        BLOCK=1024,
        num_warps=4,
    )
    return dw
