"""float32 on the matrix units, in three products: each operand is the sum of two parts of 11 bits, and the units multiply
big by big, big by small and small by big exactly. What is left out is some 2^-22 of a product, about what rounding loses.

The tiles, the copies and the pipeline are those of 16 bits; a packet is four channels. Sums of eight steps begin anew and
are added in float32, since the units cut off what they add to. Infinities would become NaN (a part of them is), so that what
is not finite is summed again by the definition. ULPGRAD_FLOAT32_MATMUL=ieee keeps to the ordinary units. Next limit:
operands are taken apart again by every warp that reads them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad import settings
from ulpgrad.formats import float32
from ulpgrad.kernels.conv import cuda_units as units, spec
from ulpgrad.kernels.conv.cuda_arguments import drawing
from ulpgrad.kernels.registry import Request, kernel

FORWARD = units.kernels(float32, "conv_matrix.cu", "conv_matrix", "false")
INPUT_GRADIENT = units.kernels(float32, "conv_matrix.cu", "conv_matrix", "true")
WEIGHT_GRADIENT = units.kernels(float32, "conv_weight_matrix.cu", "conv_weight_matrix")


def refusal(request: Request) -> str | None:
    if settings.get("ULPGRAD_FLOAT32_MATMUL") == "ieee":
        return "multiplies in TF32 parts, and ULPGRAD_FLOAT32_MATMUL=ieee asks for the ordinary units"
    return units.refusal(request, FORWARD[64])


@kernel(spec.conv2d_stochastic, "cuda/cuda-tf32", rank=80, formats=(float32,), where=drawing(refusal), build=True)
@kernel(spec.conv2d_finished, "cuda/cuda-tf32", rank=80, formats=(float32,), where=refusal, build=True)
@kernel(spec.conv2d, "cuda/cuda-tf32", rank=80, formats=(float32,), where=refusal, build=True)
def conv2d(_: Request) -> Callable[..., Any]:
    return units.conv2d(FORWARD)


@kernel(spec.conv2d_input_gradient, "cuda/cuda-tf32", rank=80, formats=(float32,), where=refusal, build=True)
def input_gradient(_: Request) -> Callable[..., Any]:
    return units.input_gradient(INPUT_GRADIENT)


@kernel(spec.conv2d_weight_gradient, "cuda/cuda-tf32", rank=80, formats=(float32,), where=refusal, build=True)
def weight_gradient(_: Request) -> Callable[..., Any]:
    return units.weight_gradient(float32, WEIGHT_GRADIENT, checked=True)
