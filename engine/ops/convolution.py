"""Convolution of images and its gradients: three ops that are each other's gradients, so every order exists."""

from __future__ import annotations

from typing import Any

from ulpgrad.differentiable import Primitive
from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.kernels.conv import spec
from ulpgrad.ops.common import as_tensor, pair
from ulpgrad.ops.reduction import sum as total
from ulpgrad.tensor import Tensor

__all__ = ["conv2d"]

_conv2d: Primitive = Primitive(
    spec.conv2d,
    "x weight bias",
    gradients={
        "x": lambda g, weight, x_shape, stride, padding, dilation, groups: _input_gradient(
            g, weight, size=x_shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
        "weight": lambda g, x, weight_shape, stride, padding, dilation, groups: _weight_gradient(
            g, x, size=weight_shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
        "bias": lambda g: total(g, axis=(0, 2, 3)),
    },
)
_input_gradient: Primitive = Primitive(
    spec.conv2d_input_gradient,
    "g0 weight",
    gradients={
        "g0": lambda g, weight, stride, padding, dilation, groups: _conv2d(
            g, weight, None, stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
        "weight": lambda g, g0, weight_shape, stride, padding, dilation, groups: _weight_gradient(
            g0, g, size=weight_shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
    },
)
_weight_gradient: Primitive = Primitive(
    spec.conv2d_weight_gradient,
    "g0 x",
    gradients={
        "g0": lambda g, x, stride, padding, dilation, groups: _conv2d(
            x, g, None, stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
        "x": lambda g, g0, x_shape, stride, padding, dilation, groups: _input_gradient(
            g0, g, size=x_shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
    },
)


def conv2d(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor:
    """Slide filters over images (cross-correlation: filters are not flipped).

    x (n, c, h, w), w (o, c / groups, kh, kw), bias (o,) -> (n, o, oh, ow). `stride`, `padding` and `dilation` are an
    integer or (vertical, horizontal); `padding="same"` keeps h and w (stride 1 only, the odd row and column of zeros at
    the end), "valid" is 0. Raises ShapeError and ArgumentError for what does not fit.
    """
    x, w = as_tensor(x), as_tensor(w)
    bias = None if bias is None else as_tensor(bias)
    steps, spread = pair("conv2d", "stride", stride, 1), pair("conv2d", "dilation", dilation, 1)
    if not isinstance(padding, str):
        out: Tensor = _conv2d(
            x, w, bias, stride=steps, padding=pair("conv2d", "padding", padding), dilation=spread, groups=groups
        )
        return out
    if padding == "valid":
        return conv2d(x, w, bias, stride, 0, dilation, groups)
    if padding != "same":
        raise ArgumentError(f"conv2d: padding must be 'same', 'valid', an integer or a pair of them, got {padding!r}")
    if steps != (1, 1):
        raise ArgumentError(f"conv2d: padding='same' needs stride 1, got {stride!r}; give the padding as a number")
    if w.ndim != 4:
        raise ShapeError(f"conv2d: weight has shape {w.shape}: expected 4 axes (out, in / groups, height, width)")
    needed = [d * (k - 1) for d, k in zip(spread, w.shape[2:], strict=True)]
    around = tuple(n - n // 2 for n in needed)
    out = _conv2d(x, w, bias, stride=steps, padding=around, dilation=spread, groups=groups)
    surplus = [n % 2 for n in needed]
    return out[:, :, surplus[0] :, surplus[1] :] if any(surplus) else out
