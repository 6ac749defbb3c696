"""Patches of images as a matrix (im2col), by slices, so that every derivative exists: a convolution as a matrix product."""

from __future__ import annotations

import math

from ulpgrad.device import elsewhere
from ulpgrad.kernels.conv.geometry import Pair, output_size
from ulpgrad.ops.creation import zeros
from ulpgrad.ops.manipulation import concat, permute_dims, reshape, stack
from ulpgrad.tensor import Tensor

__all__: list[str] = []


def padded(x: Tensor, padding: Pair) -> Tensor:
    """Images (n, c, h, w) between rows and columns of zeros."""
    for axis, width in zip((2, 3), padding, strict=True):
        if width:
            rim = zeros(
                tuple(width if i == axis else s for i, s in enumerate(x.shape)),
                dtype=x.dtype,
                device=elsewhere(x.storage),
            )
            x = concat([rim, x, rim], axis=axis)
    return x


def unfold(x: Tensor, size: Pair, *, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Tensor:
    """Images (n, c, h, w) to (groups, c / groups kh kw, n oh ow): a column is what one window sees."""
    n, c = x.shape[:2]
    rows, columns = output_size(x.shape[2:], size, stride, padding, dilation)
    x, taps = padded(x, padding), []
    for i in range(size[0]):
        for j in range(size[1]):
            top, left = i * dilation[0], j * dilation[1]
            bottom, right = top + (rows - 1) * stride[0] + 1, left + (columns - 1) * stride[1] + 1
            taps.append(x[:, :, top : bottom : stride[0], left : right : stride[1]])
    seen = permute_dims(stack(taps, axis=2), (1, 2, 0, 3, 4))
    return reshape(seen, (groups, c // groups * math.prod(size), n * rows * columns))
