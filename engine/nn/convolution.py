"""Layers over images."""

from __future__ import annotations

import math
from typing import Any

from ulpgrad.errors import ArgumentError
from ulpgrad.nn import init
from ulpgrad.nn.linear import fan_in_uniform
from ulpgrad.nn.module import Module
from ulpgrad.nn.parameter import Parameter
from ulpgrad.ops import avg_pool2d, conv2d, empty, max_pool2d
from ulpgrad.ops.common import pair
from ulpgrad.tensor import Tensor

Size = int | tuple[int, int]


class Conv2d(Module):
    """`ulpgrad.conv2d` with weight (out, in / groups, kh, kw) and bias (out,): (n, in, h, w) -> (n, out, oh, ow).

    Called with an activation and a size of windows for max pooling too, it applies these in the same kernel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        dtype: Any = None,
    ) -> None:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ArgumentError(f"Conv2d: {in_channels} and {out_channels} channels do not divide into {groups} groups")
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.weight = Parameter(empty((out_channels, in_channels // groups, *self.kernel_size), dtype=dtype))
        self.bias = Parameter(empty(out_channels, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new values, from ulpgrad.random's default generator."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5.0))
        if self.bias is not None:
            fan_in_uniform(self.bias, math.prod(self.weight.shape[1:]))

    def forward(self, x: Any, activation: str | None = None, max_pool: Size | None = None) -> Tensor:
        return conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups,
            activation=activation, max_pool=max_pool,
        )  # fmt: skip

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        settings = {"padding": (self.padding, 0), "dilation": (self.dilation, 1), "groups": (self.groups, 1)}
        text += "".join(f", {name}={value!r}" for name, (value, usual) in settings.items() if value != usual)
        return text + ("" if self.bias is not None else ", bias=False")


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
