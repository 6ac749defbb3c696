"""Pooling of images. Both gradients are linear in what comes in, and are differentiated again as gather and average."""

from __future__ import annotations

from typing import Any

from ulpgrad.differentiable import Primitive
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.kernels.adaptive_pool import spec as adaptive
from ulpgrad.kernels.conv.geometry import check_axes
from ulpgrad.kernels.pool import spec
from ulpgrad.ops.common import as_tensor, pair
from ulpgrad.ops.indexing import take_along_axis
from ulpgrad.ops.manipulation import reshape
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

__all__ = ["adaptive_avg_pool2d", "adaptive_max_pool2d", "avg_pool2d", "max_pool2d"]

Output = int | tuple[int | None, int | None] | None


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
_adaptive_max_pool2d: Primitive = Primitive(
    adaptive.adaptive_max_pool2d,
    "x",
    "y indices",
    gradients={"x": lambda g, indices, x_shape: max_pool2d_gradient(g, indices, size=x_shape[2:])},
)
_adaptive_avg_pool2d: Primitive = Primitive(
    adaptive.adaptive_avg_pool2d,
    "x",
    gradients={"x": lambda g, x_shape: _adaptive_avg_pool2d_gradient(g, size=x_shape[2:])},
)
_adaptive_avg_pool2d_gradient: Primitive = Primitive(
    adaptive.adaptive_avg_pool2d_gradient,
    "g0",
    gradients={"g0": lambda g, g0_shape: _adaptive_avg_pool2d(g, output_size=g0_shape[2:])},
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


def to_output_size(name: str, shape: tuple[int, ...], output_size: Any) -> tuple[int, int]:
    """(oh, ow) from a number, or two of which None is the image's own."""
    check_axes(name, "x", shape)
    given = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    if len(given) != 2:
        raise ArgumentError(
            f"{name}: output_size={output_size!r}: expected a whole number, or two for height and width, where None keeps "
            "the image's own"
        )
    return pair(name, "output_size", tuple(s if n is None else n for n, s in zip(given, shape[2:], strict=True)), 1)


@remembered
def adaptive_avg_pool2d(x: Any, output_size: Output) -> Tensor:
    """The mean of each of `output_size` windows: (n, c, h, w) -> (n, c, oh, ow).

    Window i along an axis of h values spans floor(i h / oh) to ceil((i + 1) h / oh), as torch has it: windows cover the image,
    and overlap where oh does not divide h. `output_size`: a number for both axes, or two; None keeps the size of the image.
    """
    x = as_tensor(x)
    out: Tensor = _adaptive_avg_pool2d(x, output_size=to_output_size("adaptive_avg_pool2d", x.shape, output_size))
    return out


@remembered
def adaptive_max_pool2d(x: Any, output_size: Output, return_indices: bool = False) -> Tensor | tuple[Tensor, Tensor]:
    """The largest value of each of `output_size` windows, which lie as in `adaptive_avg_pool2d`: (n, c, h, w) -> (n, c, oh, ow).

    With `return_indices` also where it is in its image, as row * w + column (int64). A NaN in a window is its largest value; of
    equal values the first is taken, and the gradient goes there.
    """
    x = as_tensor(x)
    size = to_output_size("adaptive_max_pool2d", x.shape, output_size)
    y, *indices = _adaptive_max_pool2d.every(x, output_size=size)
    if not return_indices:
        return y
    if not indices:
        raise FormatError(
            f"adaptive_max_pool2d: return_indices is not given for {x.dtype.name}: expected a float; convert it with "
            ".to(ulpgrad.float32)"
        )
    return y, indices[0]
