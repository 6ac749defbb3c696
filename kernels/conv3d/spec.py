"""Convolution of volumes (cross-correlation, as in all deep-learning libraries) and its two gradients, by sliding windows."""

from __future__ import annotations

from functools import partial

import numpy as np

from ulpgrad.formats import FLOATS, Array
from ulpgrad.kernels.conv import axes
from ulpgrad.kernels.conv.geometry import VOLUMES, Triple, grouped, windows
from ulpgrad.kernels.spec import Op, of_absolutes


def _conv3d(
    x: Array, weight: Array, bias: Array | None, *, stride: Triple, padding: Triple, dilation: Triple, groups: int
) -> Array:
    seen = grouped(windows(x, weight.shape[2:], stride, padding, dilation), 1, groups)
    y = np.einsum("ngcdhwijk,gocijk->ngodhw", seen, grouped(weight, 0, groups), optimize=True)
    y = y.reshape(y.shape[0], weight.shape[0], *y.shape[3:])
    return y if bias is None else y + bias[:, None, None, None]


#       x                   weight            stride     padding    dilation groups  what it is
CASES = (
    ((2, 3, 5, 6, 4), (4, 3, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1, "same"),
    ((2, 4, 5, 6, 7), (6, 2, 3, 2, 3), (2, 1, 2), (1, 0, 1), (1, 2, 1), 2, "strides, dilation, groups"),
    ((1, 3, 4, 4, 4), (2, 3, 1, 1, 1), (1, 3, 1), (0, 0, 0), (1, 1, 1), 1, "one tap with strides"),
    ((2, 5, 3, 4, 6), (7, 5, 1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1, "one tap"),
    ((1, 2, 6, 5, 4), (3, 2, 2, 3, 2), (3, 1, 2), (2, 2, 2), (2, 1, 2), 1, "wide padding"),
    ((1, 20, 4, 5, 3), (20, 1, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 20, "depthwise"),
    ((1, 2, 1, 6, 6), (3, 2, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1, "one slice"),
    ((1, 3, 4, 5, 6), (2, 3, 4, 5, 6), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1, "kernel as large as the volume"),
    ((1, 2, 5, 5, 5), (3, 2, 2, 2, 2), (3, 4, 3), (0, 0, 0), (1, 1, 1), 1, "stride larger than kernel"),
    ((1, 33, 12, 20, 9), (17, 33, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1, "a volume of several blocks"),
    ((0, 3, 4, 4, 4), (2, 3, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1, "empty batch"),
)  # fmt: skip

conv3d = Op(
    "conv3d",
    "(x: [n, c, d, h, w], weight: [o, c/groups, kd, kh, kw], bias: [o] | None, *, stride, padding, dilation, groups) "
    "-> [n, o, od, oh, ow]",
    _conv3d,
    doc="Each output is the sum of a window of x times a filter, over depth, height and width; the filter is not flipped.",
    check=partial(axes.check, "conv3d", VOLUMES),
    formats=FLOATS,
    flops=axes.flops,
    samples=partial(axes.samples, CASES),
    ulps=axes.ULPS,
    magnitude=of_absolutes(_conv3d),
)

conv3d_input_gradient = Op(
    "conv3d_input_gradient",
    "(g: [n, o, od, oh, ow], weight: [o, c/groups, kd, kh, kw], *, size, stride, padding, dilation, groups) -> [n, c, d, h, w]",
    axes.input_gradient,
    doc="The gradient of conv3d with respect to x, whose volumes have depth, height and width `size`.",
    check=partial(axes.check_input_gradient, "conv3d_input_gradient", VOLUMES),
    formats=FLOATS,
    flops=axes.input_gradient_flops,
    samples=partial(axes.input_gradient_samples, CASES),
    ulps=axes.ULPS,
    magnitude=of_absolutes(axes.input_gradient),
    family="conv3d",
)

conv3d_weight_gradient = Op(
    "conv3d_weight_gradient",
    "(g: [n, o, od, oh, ow], x: [n, c, d, h, w], *, size, stride, padding, dilation, groups) -> [o, c/groups, kd, kh, kw]",
    axes.weight_gradient,
    doc="The gradient of conv3d with respect to weight, whose filters have depth, height and width `size`.",
    check=partial(axes.check_weight_gradient, "conv3d_weight_gradient", VOLUMES),
    formats=FLOATS,
    flops=axes.weight_gradient_flops,
    samples=partial(axes.weight_gradient_samples, CASES),
    ulps=axes.ULPS,
    magnitude=of_absolutes(axes.weight_gradient),
    family="conv3d",
)

__all__ = ["conv3d", "conv3d_input_gradient", "conv3d_weight_gradient"]
