"""What every CUDA kernel of conv2d and of its input gradient stands in: sizes, a result that lies as its input does, and no
launch where that is empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad.formats import Format, float32
from ulpgrad.kernels import capture, gpu
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.cuda_arguments import Shape, Words, after, images_like
from ulpgrad.kernels.steps import best_on


def forward(fill: Callable[..., None]) -> Callable[..., Any]:
    """conv2d, conv2d_finished and conv2d_stochastic, whose result `fill(shape, y, x, weight, after)` writes."""

    def run(
        x: Any, weight: Any, bias: Any, scale: Any = None, residual: Any = None, *, activation: str | None = None,
        residual_first: bool = False, dtype: Format | None = None, key: int = 0, counter: int = 0, random_bits: int = 0,
        **geometry: Any,
    ) -> Any:  # fmt: skip
        words = Words(key, counter, random_bits) if random_bits else None
        if words is not None and (capture.current() is not None or gpu.state.rehearsed is not None):
            # A replay takes other words, which this kernel would not see.
            y = run(x, weight, bias, scale, activation=activation, dtype=float32, **geometry)
            how = {"dtype": dtype, "rounding": "stochastic", "overflow": None, "subnormals": True, **words._asdict()}
            return best_on("cuda", "quantize", float32, y, **how)(y, **how)
        shape = Shape(spec.conv2d, (x, weight), geometry)
        y = images_like(
            x, shape.images, weight.shape[0], *shape.positions, dtype=None if dtype is None else dtype.storage
        )
        if y.size:
            residual = residual if words is None else x
            follows = after(bias, scale, residual, activation, residual_first, dtype, x.dtype, words, y.shape)
            fill(shape, y, x, weight, follows)
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
