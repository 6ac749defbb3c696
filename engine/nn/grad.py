"""Gradients of convolutions as functions, with torch's names (`torch.nn.grad`): for those who write their own backward pass.

On floats they are the kernels that `backward` runs, on fixed-point tensors sums of integers, exact or in the accumulator of
`ulpgrad.fixed.arithmetic`, cut once to the result: training in integers alone. Each is differentiable itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ulpgrad.device import elsewhere
from ulpgrad.errors import ShapeError
from ulpgrad.kernels.conv.geometry import check_groups
from ulpgrad.ops.common import as_tensor, whole
from ulpgrad.ops.convolution import input_gradient, weight_gradient
from ulpgrad.ops.convolution_axes import as_row, transposed_images, with_bias
from ulpgrad.ops.convolution_volumes import are_whole, volumes_weight_gradient
from ulpgrad.ops.creation import zeros
from ulpgrad.ops.manipulation import concat, permute_dims, reshape, stack
from ulpgrad.tensor import Tensor

Sizes = int | Sequence[int]


def _settings(name: str, axes: int, stride: Any, padding: Any, dilation: Any, groups: int) -> dict[str, Any]:
    check_groups(name, 0, 0, groups)  # whether they divide channels the kernels see
    given = (("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1))
    return {**{what: whole(name, what, value, axes, least) for what, value, least in given}, "groups": groups}


def _size(name: str, what: str, given: Sequence[int], axes: int) -> tuple[int, ...]:
    if not isinstance(given, Sequence) or len(given) != 2 + axes:
        raise ShapeError(f"{name}: {what}={given!r}: expected {2 + axes} sizes, as the tensor's shape has")
    return tuple(int(s) for s in given)


def _expected(name: str, what: str, given: tuple[int, ...], found: tuple[int, ...]) -> None:
    if given != found:
        raise ShapeError(f"{name}: {what}={given}: expected {found}, by the other operands")


def _to_input(axes: int, input_size: Any, weight: Any, grad_output: Any, stride: Any, padding: Any, dilation: Any,
              groups: int) -> Tensor:  # fmt: skip
    name, g, w = f"conv{axes}d_input", as_tensor(grad_output), as_tensor(weight)
    size, how = _size(name, "input_size", input_size, axes), _settings(name, axes, stride, padding, dilation, groups)
    for what, t in (("weight", w), ("grad_output", g)):
        _size(name, what, t.shape, axes)
    _expected(name, "input_size", size, (g.shape[0], w.shape[1] * groups, *size[2:]))
    if axes == 1:
        return reshape(input_gradient(as_row(g), as_row(w), size=(1, size[2]), **_of_rows(how)), size)
    if axes == 2 or are_whole(g, w):
        return with_bias(g, w, None, size=size[2:], **how)
    return transposed_images(g, w, None, size=size[2:], **how, transpose=with_bias)


def _to_weight(axes: int, x: Any, weight_size: Any, grad_output: Any, stride: Any, padding: Any, dilation: Any,
               groups: int) -> Tensor:  # fmt: skip
    name, g, x = f"conv{axes}d_weight", as_tensor(grad_output), as_tensor(x)
    size, how = _size(name, "weight_size", weight_size, axes), _settings(name, axes, stride, padding, dilation, groups)
    for what, t in (("input", x), ("grad_output", g)):
        _size(name, what, t.shape, axes)
    _expected(name, "weight_size", size, (g.shape[1], x.shape[1] // max(1, groups), *size[2:]))
    if axes == 1:
        return reshape(weight_gradient(as_row(g), as_row(x), size=(1, size[2]), **_of_rows(how)), size)
    if axes == 2:
        return weight_gradient(g, x, size=size[2:], **how)
    if are_whole(g, x):
        return volumes_weight_gradient(g, x, size=size[2:], **how)
    return _weight_by_images(g, x, size[2:], **how)


def _weight_by_images(
    g: Tensor, x: Tensor, size: Any, *, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    """Of a tap in depth it is the gradient of a convolution of the slices that it met."""
    (n, c), plane, rows = x.shape[:2], x.shape[3:], g.shape[2]
    across = {"stride": stride[1:], "padding": padding[1:], "dilation": dilation[1:], "groups": groups}
    slices = reshape(permute_dims(g, (0, 2, 1, 3, 4)), (n * rows, g.shape[1], *g.shape[3:]))
    rim = zeros((n, c, padding[0], *plane), dtype=x.dtype, device=elsewhere(x.storage))
    x = concat([rim, x, rim], axis=2) if padding[0] else x
    found = []
    for tap in range(size[0]):
        first = tap * dilation[0]
        seen = x[:, :, first : first + (rows - 1) * stride[0] + 1 : stride[0]]
        images = reshape(permute_dims(seen, (0, 2, 1, 3, 4)), (n * rows, c, *plane))
        found.append(weight_gradient(slices, images, size=size[1:], **across))
    return stack(found, axis=2)


def _of_rows(how: dict[str, Any]) -> dict[str, Any]:
    """Settings along one axis as those of images of one row."""
    first = {"stride": 1, "padding": 0, "dilation": 1}
    return {**{what: (one, *how[what]) for what, one in first.items()}, "groups": how["groups"]}


def conv1d_input(
    input_size: Sequence[int],
    weight: Any,
    grad_output: Any,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv1d` with respect to x of shape `input_size` (n, c, l), from `grad_output` (n, o, ol) and weight
    (o, c / groups, k)."""
    return _to_input(1, input_size, weight, grad_output, stride, padding, dilation, groups)


def conv1d_weight(
    input: Any,
    weight_size: Sequence[int],
    grad_output: Any,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv1d` with respect to weight of shape `weight_size` (o, c / groups, k), from `grad_output` (n, o, ol)
    and input (n, c, l)."""
    return _to_weight(1, input, weight_size, grad_output, stride, padding, dilation, groups)


def conv2d_input(
    input_size: Sequence[int],
    weight: Any,
    grad_output: Any,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv2d` with respect to x of shape `input_size` (n, c, h, w), from `grad_output` (n, o, oh, ow) and weight
    (o, c / groups, kh, kw)."""
    return _to_input(2, input_size, weight, grad_output, stride, padding, dilation, groups)


def conv2d_weight(
    input: Any,
    weight_size: Sequence[int],
    grad_output: Any,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv2d` with respect to weight of shape `weight_size` (o, c / groups, kh, kw), from `grad_output`
    (n, o, oh, ow) and input (n, c, h, w)."""
    return _to_weight(2, input, weight_size, grad_output, stride, padding, dilation, groups)


def conv3d_input(
    input_size: Sequence[int],
    weight: Any,
    grad_output: Any,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv3d` with respect to x of shape `input_size` (n, c, d, h, w), from `grad_output` (n, o, od, oh, ow) and
    weight (o, c / groups, kd, kh, kw)."""
    return _to_input(3, input_size, weight, grad_output, stride, padding, dilation, groups)


def conv3d_weight(
    input: Any,
    weight_size: Sequence[int],
    grad_output: Any,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """The gradient of `conv3d` with respect to weight of shape `weight_size` (o, c / groups, kd, kh, kw), from `grad_output`
    (n, o, od, oh, ow) and input (n, c, d, h, w)."""
    return _to_weight(3, input, weight_size, grad_output, stride, padding, dilation, groups)


__all__ = ["conv1d_input", "conv1d_weight", "conv2d_input", "conv2d_weight", "conv3d_input", "conv3d_weight"]
