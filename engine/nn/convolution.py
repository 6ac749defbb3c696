"""Layers over signals, images and volumes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ulpgrad.errors import ArgumentError
from ulpgrad.nn import init
from ulpgrad.nn.linear import fan_in_uniform
from ulpgrad.nn.module import Module
from ulpgrad.nn.normalization import BatchNorm2d
from ulpgrad.nn.parameter import Parameter
from ulpgrad.ops import (
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    avg_pool2d,
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    empty,
    max_pool2d,
)
from ulpgrad.ops.common import whole
from ulpgrad.tensor import Tensor

Size = int | tuple[int, int]
OutputSize = int | tuple[int | None, int | None] | None
Sizes = Any  # one number for all axes, or one for each


class Convolution(Module):
    """What the layers share: filters (out, in / groups, ...), a bias (out,), torch's start for both, and how they are shown."""

    axes = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        dtype: Any = None,
    ) -> None:
        name = type(self).__name__
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ArgumentError(f"{name}: {in_channels} and {out_channels} channels do not divide into {groups} groups")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = whole(name, "kernel_size", kernel_size, self.axes, 1)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.weight = Parameter(empty((*self._channels(), *self.kernel_size), dtype=dtype))
        self.bias = Parameter(empty(out_channels, dtype=dtype)) if bias else None
        self.reset_parameters()

    def _channels(self) -> tuple[int, int]:
        return self.out_channels, self.in_channels // self.groups

    def reset_parameters(self) -> None:
        """Draw new values, from ulpgrad.random's default generator."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5.0))
        if self.bias is not None:
            fan_in_uniform(self.bias, math.prod(self.weight.shape[1:]))

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        settings = {"padding": (self.padding, 0), "dilation": (self.dilation, 1), "groups": (self.groups, 1)}
        text += "".join(f", {name}={value!r}" for name, (value, usual) in settings.items() if value != usual)
        return text + ("" if self.bias is not None else ", bias=False")


class Conv2d(Convolution):
    """`ulpgrad.conv2d` with weight (out, in / groups, kh, kw) and bias (out,): (n, in, h, w) -> (n, out, oh, ow).

    Called with an activation and a size of windows for max pooling too, it applies these in the same kernel; and in inference a
    residual.
    """

    def forward(
        self,
        x: Any,
        activation: str | None = None,
        max_pool: Size | None = None,
        residual: Tensor | None = None,
        residual_first: bool = False,
    ) -> Tensor:
        return conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups,
            activation=activation, max_pool=max_pool, residual=residual, residual_first=residual_first,
        )  # fmt: skip

    def normalized(
        self,
        x: Any,
        norm: BatchNorm2d,
        activation: str | None = None,
        residual: Tensor | None = None,
        residual_first: bool = False,
    ) -> Tensor:
        """The layer, batch normalization in inference, activation and residual, as one call of `conv2d`."""
        scale, shift = norm.scale_and_shift()
        shift = shift if self.bias is None else shift + self.bias * scale
        return conv2d(
            x, self.weight, shift, self.stride, self.padding, self.dilation, self.groups,
            activation=activation, scale=scale, residual=residual, residual_first=residual_first,
        )  # fmt: skip


class Conv1d(Convolution):
    """`ulpgrad.conv1d` with weight (out, in / groups, k) and bias (out,): (n, in, l) -> (n, out, ol)."""

    axes = 1

    def forward(self, x: Any) -> Tensor:
        return conv1d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv3d(Convolution):
    """`ulpgrad.conv3d` with weight (out, in / groups, kd, kh, kw) and bias (out,): (n, in, d, h, w) -> (n, out, od, oh, ow)."""

    axes = 3

    def forward(self, x: Any) -> Tensor:
        return conv3d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ConvTranspose2d(Convolution):
    """`ulpgrad.conv_transpose2d` with weight (in, out / groups, kh, kw) and bias (out,): (n, in, h, w) -> (n, out, oh, ow)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        dtype: Any = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, dtype)
        self.output_padding = output_padding

    def _channels(self) -> tuple[int, int]:
        return self.in_channels, self.out_channels // self.groups

    def _transposed(self, function: Callable[..., Tensor], x: Any) -> Tensor:
        return function(
            x, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )

    def forward(self, x: Any) -> Tensor:
        return self._transposed(conv_transpose2d, x)

    def extra_repr(self) -> str:
        behind = f", output_padding={self.output_padding!r}" if self.output_padding != 0 else ""
        return super().extra_repr() + behind


class ConvTranspose1d(ConvTranspose2d):
    """`ulpgrad.conv_transpose1d` with weight (in, out / groups, k) and bias (out,): (n, in, l) -> (n, out, ol)."""

    axes = 1

    def forward(self, x: Any) -> Tensor:
        return self._transposed(conv_transpose1d, x)


class ConvTranspose3d(ConvTranspose2d):
    """`ulpgrad.conv_transpose3d` with weight (in, out / groups, kd, kh, kw) and bias (out,): (n, in, d, h, w) -> (n, out, od, oh,
    ow)."""

    axes = 3

    def forward(self, x: Any) -> Tensor:
        return self._transposed(conv_transpose3d, x)


class MaxPool2d(Module):
    """The largest value of each window. See `ulpgrad.max_pool2d`."""

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1) -> None:
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation

    def is_tiling(self) -> bool:
        """Whether windows lie side by side, without padding."""
        return self.stride == self.kernel_size and self.padding in (0, (0, 0)) and self.dilation in (1, (1, 1))

    def forward(self, x: Any) -> Tensor:
        return max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, dilation={self.dilation}"


class AvgPool2d(Module):
    """The mean of each window. See `ulpgrad.avg_pool2d`."""

    def __init__(
        self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, count_include_pad: bool = True
    ) -> None:
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.count_include_pad = padding, count_include_pad

    def forward(self, x: Any) -> Tensor:
        return avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.count_include_pad)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """The mean of each of `output_size` windows (a number, or two of which None keeps the image's own size). See
    `ulpgrad.adaptive_avg_pool2d`."""

    def __init__(self, output_size: OutputSize) -> None:
        self.output_size = output_size

    def forward(self, x: Any) -> Tensor:
        return adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveMaxPool2d(Module):
    """The largest value of each of `output_size` windows, and with `return_indices` its place. See
    `ulpgrad.adaptive_max_pool2d`."""

    def __init__(self, output_size: OutputSize, return_indices: bool = False) -> None:
        self.output_size, self.return_indices = output_size, return_indices

    def forward(self, x: Any) -> Any:
        return adaptive_max_pool2d(x, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"
