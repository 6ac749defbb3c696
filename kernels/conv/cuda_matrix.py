"""Implicit matmul on the matrix units: patches are copied straight into swizzled shared memory, and whole warps multiply.

Four tiles are in the pipeline: one is multiplied while the asynchronous copies of three are on their way. Channels are to
lie side by side in multiples of eight; images that do not are laid so first, in one pass that transposes tiles and fills
channels up, and results go back to the layout of the input as they are written. The input gradient is the same kernel on
the filters from the side of their inputs, once for each phase of the strides; the weight gradient sums slices of the
positions, which a second pass adds in their order. Scale, bias, residual, activation and the format of the result are the
work of a short loop over the sums in shared memory. One source serves sm_80 and all later ones. Next limit: mma.sync
reaches some 60 % of what the matrix units of an H100 can do, whose own instructions take operands from shared memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad.formats import Format, bfloat16, float16
from ulpgrad.kernels.conv import cuda_units as units, spec
from ulpgrad.kernels.conv.cuda_arguments import drawing
from ulpgrad.kernels.registry import Request, kernel

FORMATS = (float16, bfloat16)
FORWARD: dict[Format | None, units.Kernels] = {
    f: units.kernels(f, "conv_matrix.cu", "conv_matrix", "false") for f in FORMATS
}
INPUT_GRADIENT: dict[Format | None, units.Kernels] = {
    f: units.kernels(f, "conv_matrix.cu", "conv_matrix", "true") for f in FORMATS
}
WEIGHT_GRADIENT: dict[Format, units.Kernels] = {
    f: units.kernels(f, "conv_weight_matrix.cu", "conv_weight_matrix") for f in FORMATS
}


def refusal(request: Request) -> str | None:
    return units.refusal(request, FORWARD[float16][64])


@kernel(spec.conv2d_stochastic, "cuda/cuda-matrix", rank=90, formats=FORMATS, where=drawing(refusal), build=True)
@kernel(spec.conv2d_finished, "cuda/cuda-matrix", rank=90, formats=FORMATS, where=refusal, build=True)
@kernel(spec.conv2d, "cuda/cuda-matrix", rank=90, formats=FORMATS, where=refusal, build=True)
def conv2d(request: Request) -> Callable[..., Any]:
    return units.conv2d(FORWARD[request.formats[0]])


@kernel(spec.conv2d_input_gradient, "cuda/cuda-matrix", rank=90, formats=FORMATS, where=refusal, build=True)
def input_gradient(request: Request) -> Callable[..., Any]:
    return units.input_gradient(INPUT_GRADIENT[request.formats[0]])


@kernel(spec.conv2d_weight_gradient, "cuda/cuda-matrix", rank=90, formats=FORMATS, where=refusal, build=True)
def weight_gradient(request: Request) -> Callable[..., Any]:
    form = request.formats[0]
    assert form is not None
    return units.weight_gradient(form, WEIGHT_GRADIENT[form])
