"""A filter that sees a whole image, or images of one pixel: with one output position a convolution is one product of matrices, by
the best kernel for products. Tiles of pixels would multiply one pixel and padding."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from ulpgrad.formats import Array, Format, bfloat16, float16, float32, float64
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.geometry import Pair
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.steps import best

FORMATS = (float32, float64, bfloat16, float16)


def refusal(request: Request) -> str | None:
    """Why there are more positions than one; None if there are not."""
    if spec.has_one_position(request.arrays, request.params):
        return None
    return "is for filters as large as the image, in one group, without padding and dilation"


def finished(request: Request) -> str | None:
    if request.params.get("dtype") is not None or (
        request.arrays[4] is not None and request.params.get("residual_first")
    ):
        return "adds a residual behind the activation, in the format of x"
    return refusal(request)


def _form(request: Request) -> Format:
    form = request.formats[0]
    assert form is not None
    return form


def _linear(request: Request) -> Callable[..., Array]:
    """The best kernel for products with what follows; those of the extension take all shapes, so it is chosen once."""
    x, weight = (_rows(a) for a in request.arrays[:2])
    return best("linear", _form(request), x, weight, None, activation=None)


def _matmul(request: Request) -> Callable[..., Array]:
    g, other = (_rows(a) for a in request.arrays[:2])
    return best("matmul", _form(request), g if g.shape[1] == other.shape[0] else g.T, other)


def _rows(a: Array) -> Array:
    return a.reshape(a.shape[0], prod(a.shape[1:]))


@kernel(spec.conv2d, "cpu/native-position", rank=65, formats=FORMATS, where=refusal, build=True)
def conv2d(request: Request) -> Callable[..., Array]:
    linear = _linear(request)

    def run(x: Array, weight: Array, bias: Array | None, *, activation: str | None = None, **_: Any) -> Array:
        y = linear(_rows(x), _rows(weight), bias, activation=activation)
        return y.reshape(*y.shape, 1, 1)

    return run


@kernel(spec.conv2d_finished, "cpu/native-position", rank=65, formats=FORMATS, where=finished, build=True)
def conv2d_finished(request: Request) -> Callable[..., Array]:
    linear = _linear(request)

    def run(
        x: Array, weight: Array, bias: Array | None, scale: Array | None, residual: Array | None, *,
        activation: str | None = None, **_: Any,
    ) -> Array:  # fmt: skip
        behind = None if residual is None else _rows(residual)
        y = linear(_rows(x), _rows(weight), bias, scale, behind, activation=activation)
        return y.reshape(*y.shape, 1, 1)

    return run


@kernel(spec.conv2d_input_gradient, "cpu/native-position", rank=65, formats=FORMATS, where=refusal, build=True)
def input_gradient(request: Request) -> Callable[..., Array]:
    product = _matmul(request)

    def run(g: Array, weight: Array, *, size: Pair, **_: Any) -> Array:
        dx = product(_rows(g), _rows(weight))
        return dx.reshape(g.shape[0], weight.shape[1], *size)

    return run


@kernel(spec.conv2d_weight_gradient, "cpu/native-position", rank=65, formats=FORMATS, where=refusal, build=True)
def weight_gradient(request: Request) -> Callable[..., Array]:
    product = _matmul(request)

    def run(g: Array, x: Array, *, size: Pair, **_: Any) -> Array:
        dw = product(_rows(g).T, _rows(x))
        return dw.reshape(g.shape[1], x.shape[1], *size)

    return run
