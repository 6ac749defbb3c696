"""Volumes as images: what a filter's taps in depth see is copied side by side as channels, so that one convolution of images,
by the best kernel for them, adds up all. Next limit: every slice is copied once for each tap that sees it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.conv.geometry import Triple, output_size
from ulpgrad.kernels.conv3d import spec
from ulpgrad.kernels.conv3d.plane import format_of, plane
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.steps import best

FORMATS = (float32, float64)


def _slices(x: Array, taps: int, rows: int, stride: Triple, padding: Triple, dilation: Triple) -> Array:
    """[n, c, d, h, w] -> images [n * rows, c * taps, h, w]."""
    n, c, _, h, w = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (padding[0], padding[0]), (0, 0), (0, 0)))
    seen = np.empty((n, rows, c, taps, h, w), x.dtype)
    for t in range(taps):
        first = t * dilation[0]
        part = padded[:, :, first : first + (rows - 1) * stride[0] + 1 : stride[0]]
        seen[:, :, :, t] = part.transpose(0, 2, 1, 3, 4)
    return seen.reshape(n * rows, c * taps, h, w)


def _images(g: Array) -> Array:
    """[n, o, d, h, w] -> [n * d, o, h, w]."""
    n, o, d, h, w = g.shape
    return np.ascontiguousarray(g.transpose(0, 2, 1, 3, 4)).reshape(n * d, o, h, w)


def _filters(weight: Array) -> Array:
    o, c, taps, *kernel = weight.shape
    return np.ascontiguousarray(weight).reshape(o, c * taps, *kernel)


@kernel(spec.conv3d, "cpu/numpy-slices", rank=20, formats=FORMATS, build=True)
def conv3d(request: Request) -> Any:
    form = format_of(request)

    def run(x: Array, weight: Array, bias: Array | None, **geometry: Any) -> Array:
        across, taps = plane(**geometry), weight.shape[2]
        how = {k: v for k, v in geometry.items() if k != "groups"}
        rows = output_size(x.shape[2:], weight.shape[2:], **how)[0]
        given = _slices(x, taps, rows, **how), _filters(weight), bias
        y = best("conv2d", form, *given, **across)(*given, **across)
        y = y.reshape(x.shape[0], rows, *y.shape[1:])
        return np.ascontiguousarray(y.transpose(0, 2, 1, 3, 4))

    return run


@kernel(spec.conv3d_input_gradient, "cpu/numpy-slices", rank=20, formats=FORMATS, build=True)
def input_gradient(request: Request) -> Any:
    form = format_of(request)

    def run(g: Array, weight: Array, *, size: Triple, **geometry: Any) -> Array:
        (n, _, rows, *_), (_, inner, taps, *_) = g.shape, weight.shape
        stride, padding, dilation = geometry["stride"], geometry["padding"], geometry["dilation"]
        across = {"size": size[1:], **plane(**geometry)}
        given = _images(g), _filters(weight)
        seen = best("conv2d_input_gradient", form, *given, **across)(*given, **across)
        seen = seen.reshape(n, rows, inner * geometry["groups"], taps, *size[1:])
        dx = np.zeros((n, seen.shape[2], size[0] + 2 * padding[0], *size[1:]), g.dtype)
        for t in range(taps):
            first = t * dilation[0]
            dx[:, :, first : first + (rows - 1) * stride[0] + 1 : stride[0]] += seen[:, :, :, t].transpose(
                0, 2, 1, 3, 4
            )
        return np.ascontiguousarray(dx[:, :, padding[0] : padding[0] + size[0]])

    return run


@kernel(spec.conv3d_weight_gradient, "cpu/numpy-slices", rank=20, formats=FORMATS, build=True)
def weight_gradient(request: Request) -> Any:
    form = format_of(request)

    def run(g: Array, x: Array, *, size: Triple, **geometry: Any) -> Array:
        across = {"size": size[1:], **plane(**geometry)}
        how = {k: v for k, v in geometry.items() if k != "groups"}
        given = _images(g), _slices(x, size[0], g.shape[2], **how)
        dw = best("conv2d_weight_gradient", form, *given, **across)(*given, **across)
        return dw.reshape(g.shape[1], x.shape[1] // geometry["groups"], *size)

    return run
