"""Convolution of images and its gradients: three ops that are each other's gradients, so every order exists."""

from __future__ import annotations

from typing import Any

from ulpgrad.differentiable import Primitive
from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.geometry import output_size
from ulpgrad.ops import accumulate as acc
from ulpgrad.ops.common import as_tensor, pair
from ulpgrad.ops.manipulation import permute_dims, reshape
from ulpgrad.ops.reduction import sum as total
from ulpgrad.ops.unfold import unfold
from ulpgrad.remembered import remembered
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


@remembered
def conv2d(
    x: Any,
    w: Any,
    bias: Any = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    *,
    accumulate: Any = None,
    accumulate_backward: Any = None,
) -> Tensor:
    """Slide filters over images (cross-correlation: filters are not flipped).

    x (n, c, h, w), w (o, c / groups, kh, kw), bias (o,) -> (n, o, oh, ow). `stride`, `padding` and `dilation` are an
    integer or (vertical, horizontal); `padding="same"` keeps h and w (stride 1 only, the odd row and column of zeros at
    the end), "valid" is 0. `accumulate` and `accumulate_backward`: as in `matmul`, for sums over (c, kh, kw) in that order
    and, in the gradients, over the outputs and over (n, oh, ow); overlapping windows add up plainly. Raises ShapeError and
    ArgumentError for what does not fit.
    """
    x, w = as_tensor(x), as_tensor(w)
    bias = None if bias is None else as_tensor(bias)
    steps, spread = pair("conv2d", "stride", stride, 1), pair("conv2d", "dilation", dilation, 1)

    def run(around: tuple[int, int]) -> Tensor:
        geometry = {"stride": steps, "padding": around, "dilation": spread, "groups": groups}
        if accumulate is None:
            if accumulate_backward is not None:
                raise ArgumentError(f"conv2d: accumulate_backward={accumulate_backward!r} needs accumulate=")
            return _conv2d(x, w, bias, **geometry)
        return _accumulated(x, w, bias, accumulate, accumulate_backward, **geometry)

    if not isinstance(padding, str):
        return run(pair("conv2d", "padding", padding))
    if padding == "valid":
        return run((0, 0))
    if padding != "same":
        raise ArgumentError(f"conv2d: padding must be 'same', 'valid', an integer or a pair of them, got {padding!r}")
    if steps != (1, 1):
        raise ArgumentError(f"conv2d: padding='same' needs stride 1, got {stride!r}; give the padding as a number")
    if w.ndim != 4:
        raise ShapeError(f"conv2d: weight has shape {w.shape}: expected 4 axes (out, in / groups, height, width)")
    needed = [d * (k - 1) for d, k in zip(spread, w.shape[2:], strict=True)]
    out = run((needed[0] - needed[0] // 2, needed[1] - needed[1] // 2))
    surplus = [n % 2 for n in needed]
    return out[:, :, surplus[0] :, surplus[1] :] if any(surplus) else out


def _accumulated(x: Tensor, w: Tensor, bias: Tensor | None, accumulate: Any, backward: Any, **geometry: Any) -> Tensor:
    """A convolution as a product of filters with patches, whose sums a chosen accumulator keeps."""
    spec.conv2d.check(x, w, bias, **geometry)  # type: ignore[misc]
    groups, n, o = geometry["groups"], x.shape[0], w.shape[0]
    size = w.shape[2], w.shape[3]
    rows, columns = output_size(x.shape[2:], size, geometry["stride"], geometry["padding"], geometry["dilation"])
    filters = reshape(w, (groups, o // groups, w.shape[1] * size[0] * size[1]))
    out = acc.product("conv2d", filters, unfold(x, size, **geometry), accumulate, backward)
    out = permute_dims(reshape(out, (o, n, rows, columns)), (1, 0, 2, 3))
    return out if bias is None else out + reshape(bias, (1, o, 1, 1))
