"""The definition in CUDA C++: a thread sums one result. Any layout is read as it lies, and results lie as their input does.

Next limit: the same pixel is read from memory by every window and every output channel that needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.cuda_arguments import (
    DRAWN_FORMATS,
    FORMATS,
    After,
    Shape,
    cdiv,
    drawing,
    kernels,
    rounds_doubles,
    strides,
    too_long,
)
from ulpgrad.kernels.conv.cuda_frames import backward, forward
from ulpgrad.kernels.cuda_compile import Kernel
from ulpgrad.kernels.registry import Request, kernel

THREADS = 256

FORWARD = kernels("conv_direct.cu", "conv_forward_direct")
INPUT_GRADIENT = kernels("conv_direct.cu", "conv_input_gradient_direct")
WEIGHT_GRADIENT = kernels("conv_direct.cu", "conv_weight_gradient_direct")


def refusal(request: Request) -> str | None:
    return rounds_doubles(request) or too_long(request)


def launch(chosen: Kernel, out: Any, *arguments: Any) -> Any:
    """A thread for each result; beyond 2^39 results, several for a thread."""
    if out.size:
        chosen.launch((min(cdiv(out.size, THREADS), 2**31 - 1), 1, 1), (THREADS, 1, 1), out, *arguments)
    return out


@kernel(spec.conv2d_stochastic, "cuda/cuda-direct", rank=30, formats=DRAWN_FORMATS, where=drawing(too_long), build=True)
@kernel(spec.conv2d_finished, "cuda/cuda-direct", rank=30, formats=FORMATS, where=refusal, build=True)
@kernel(spec.conv2d, "cuda/cuda-direct", rank=30, formats=FORMATS, where=too_long, build=True)
def conv2d(request: Request) -> Callable[..., Any]:
    chosen = FORWARD[request.formats[0]]

    def fill(shape: Shape, y: Any, x: Any, weight: Any, after: After) -> None:
        places = (shape.argument, strides(x), strides(weight), strides(y))
        launch(chosen, y, x, weight, *after.operands, *places, after.argument)

    return forward(fill)


@kernel(spec.conv2d_input_gradient, "cuda/cuda-direct", rank=30, formats=FORMATS, where=too_long, build=True)
def input_gradient(request: Request) -> Callable[..., Any]:
    chosen = INPUT_GRADIENT[request.formats[0]]

    def fill(shape: Shape, dx: Any, g: Any, weight: Any) -> None:
        launch(chosen, dx, g, weight, shape.argument, strides(g), strides(weight), strides(dx))

    return backward(fill)


@kernel(spec.conv2d_weight_gradient, "cuda/cuda-direct", rank=30, formats=FORMATS, where=too_long, build=True)
def weight_gradient(request: Request) -> Callable[..., Any]:
    chosen = WEIGHT_GRADIENT[request.formats[0]]

    def run(g: Any, x: Any, **geometry: Any) -> Any:
        shape = Shape(spec.conv2d_weight_gradient, (g, x), geometry)
        dw = gpu.xp().empty((g.shape[1], shape.inputs, *shape.kernel), g.dtype)
        return launch(chosen, dw, g, x, shape.argument, strides(g), strides(x), strides(dw))

    return run
