"""What every CUDA kernel of conv2d and of its input gradient stands in: sizes, a result that lies as its input does, and no
launch where that is empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad.formats import Format
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.cuda_arguments import Shape, after, images_like


def forward(fill: Callable[..., None]) -> Callable[..., Any]:
    """conv2d and conv2d_finished, whose result `fill(shape, y, x, weight, after)` writes."""

    def run(
        x: Any, weight: Any, bias: Any, scale: Any = None, residual: Any = None, *, activation: str | None = None,
        residual_first: bool = False, dtype: Format | None = None, **geometry: Any,
    ) -> Any:  # fmt: skip
        shape = Shape(spec.conv2d, (x, weight), geometry)
        y = images_like(
            x, shape.images, weight.shape[0], *shape.positions, dtype=None if dtype is None else dtype.storage
        )
        if y.size:
            fill(shape, y, x, weight, after(bias, scale, residual, activation, residual_first, dtype, x.dtype))
        return y

    return run


def backward(fill: Callable[..., None]) -> Callable[..., Any]:
    """The gradient of the input, which `fill(shape, dx, g, weight)` writes."""

    def run(g: Any, weight: Any, **geometry: Any) -> Any:
        shape = Shape(spec.conv2d_input_gradient, (g, weight), geometry)
        dx = images_like(g, shape.images, shape.groups * shape.inputs, *shape.size)
        if dx.size:
            fill(shape, dx, g, weight)
        return dx

    return run


__all__ = ["backward", "forward"]
