"""im2col and our matmul: the matrix of patches is written to memory and multiplied by the filters with matmul's register tiles.

The product knows nothing of images, so that whatever makes matrices faster makes this faster. Next limit: a matrix of patches
is as many times the images as a filter has taps, and goes through memory twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad.formats import Format, float32, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.cuda_arguments import After, Shape, cdiv, shape_of, sparse_or_too_large, strides
from ulpgrad.kernels.conv.cuda_frames import forward
from ulpgrad.kernels.conv.geometry import LARGEST
from ulpgrad.kernels.cuda_compile import Kernel, c_type
from ulpgrad.kernels.matmul import cuda_registers, spec as matmul
from ulpgrad.kernels.registry import Request, kernel

FORMATS = (float32, float64)  # sums of narrower ones would be rounded before bias and activation
THREADS = 256

UNFOLD: dict[Format, Kernel] = {f: Kernel("conv_unfold.cu", f"conv_unfold<{c_type(f)}>") for f in FORMATS}
FINISH: dict[Format, Kernel] = {f: Kernel("conv_unfold.cu", f"conv_finish<{c_type(f)}>") for f in FORMATS}


def refusal(request: Request) -> str | None:
    shape = shape_of(request)
    patches = shape.rows * shape.groups * shape.depth
    if patches > LARGEST:
        return f"takes patches of up to 2^31 - 1 values together, not {patches}"
    return sparse_or_too_large(request)


def launch(chosen: Kernel, out: Any, threads: int, *arguments: Any) -> None:
    """With so many threads, 256 to a block."""
    if threads:
        chosen.launch((cdiv(threads, THREADS), 1, 1), (THREADS, 1, 1), out, *arguments)


def product(form: Format) -> Callable[..., Any]:
    """matmul's register tiles."""
    return cuda_registers.matmul(Request(matmul.matmul, "cuda", (form, form), (), {}))


@kernel(spec.conv2d, "cuda/cuda-unfold", rank=60, formats=FORMATS, where=refusal, build=True)
def conv2d(request: Request) -> Callable[..., Any]:
    form = request.formats[0]
    assert form is not None
    multiply = product(form)

    def fill(shape: Shape, y: Any, x: Any, weight: Any, after: After) -> None:
        positions = shape.rows // shape.images
        patches = gpu.xp().empty((shape.images, shape.groups, positions, shape.depth), x.dtype)
        launch(UNFOLD[form], patches, patches.size, x, shape.argument, strides(x))
        filters = gpu.contiguous(weight).reshape(1, shape.groups, shape.outputs, shape.depth)
        sums = multiply(filters, patches.swapaxes(2, 3)).reshape(y.shape)
        launch(FINISH[form], y, y.size, sums, after.bias, shape.argument, strides(sums), strides(y), after.activation)

    return forward(fill)
