"""Pooling of images. Both gradients are linear in what comes in, and are differentiated again as gather and average."""

from __future__ import annotations

from typing import Any

from ulpgrad.differentiable import Primitive
from ulpgrad.kernels.pool import spec
from ulpgrad.ops.common import as_tensor, pair
from ulpgrad.ops.indexing import take_along_axis
from ulpgrad.ops.manipulation import reshape
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

__all__ = ["avg_pool2d", "max_pool2d"]


def _gather(values: Tensor, indices: Tensor) -> Tensor:
    """Of each plane (h, w), the values at the places that were largest."""
    planes, (n, c, oh, ow) = reshape(values, (*values.shape[:2], -1)), indices.shape
    return reshape(take_along_axis(planes, reshape(indices, (n, c, oh * ow)), axis=2), indices.shape)


_max_pool2d: Primitive = Primitive(
    spec.max_pool2d,
    "x",
    "y indices",
    gradients={"x": lambda g, indices, x_shape: max_pool2d_gradient(g, indices, size=x_shape[2:])},
)
max_pool2d_gradient: Primitive = Primitive(
    spec.max_pool2d_gradient, "g0 indices", gradients={"g0": lambda g, indices: _gather(g, indices)}
)
_avg_pool2d: Primitive = Primitive(
    spec.avg_pool2d,
    "x",
    gradients={
        "x": lambda g, x_shape, kernel_size, stride, padding, count_include_pad: _avg_pool2d_gradient(
            g,
            size=x_shape[2:],
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            count_include_pad=count_include_pad,
        )
    },
)
_avg_pool2d_gradient: Primitive = Primitive(
    spec.avg_pool2d_gradient,
    "g0",
    gradients={
        "g0": lambda g, kernel_size, stride, padding, count_include_pad: _avg_pool2d(
            g, kernel_size=kernel_size, stride=stride, padding=padding, count_include_pad=count_include_pad
        )
    },
)


def _windows(name: str, kernel_size: Any, stride: Any, padding: Any) -> dict[str, tuple[int, int]]:
    kernel = pair(name, "kernel_size", kernel_size, 1)
    return {
        "kernel_size": kernel,
        "stride": kernel if stride is None else pair(name, "stride", stride, 1),
        "padding": pair(name, "padding", padding),
    }


@remembered
def max_pool2d(
    x: Any,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    dilation: int | tuple[int, int] = 1,
) -> Tensor:
    """The largest value of each window: (n, c, h, w) -> (n, c, oh, ow).

    `stride` is the kernel's size unless given; padding counts as -infinity. A NaN in a window is its largest value. The
    gradient goes to the first of equal values.
    """
    windows = _windows("max_pool2d", kernel_size, stride, padding)
    out: Tensor = _max_pool2d(as_tensor(x), **windows, dilation=pair("max_pool2d", "dilation", dilation, 1))
    return out


@remembered
def avg_pool2d(
    x: Any,
    kernel_size: int | tuple[int, int],
    stride: int | tuple[int, int] | None = None,
    padding: int | tuple[int, int] = 0,
    count_include_pad: bool = True,
) -> Tensor:
    """The mean of each window: (n, c, h, w) -> (n, c, oh, ow). Zeros of the padding count unless `count_include_pad` is
    False."""
    windows = _windows("avg_pool2d", kernel_size, stride, padding)
    out: Tensor = _avg_pool2d(as_tensor(x), **windows, count_include_pad=bool(count_include_pad))
    return out
