"""Whole warps multiply on the matrix units: 16 x 16 by 16 x 8 values of 16 bits in one instruction, summed in float32. Tiles come
by asynchronous copies, four in the pipeline, straight into shared memory and past the registers; there their chunks of 16
bytes are swizzled, so that matrices are loaded without bank conflicts, transposed where an operand lies that way.
Operands whose lines are no multiples of a chunk are copied into such before. Next limit: mma.sync reaches some 60 % of what an
H100's units can do, whose own instructions take operands from shared memory and leave the copies to one thread."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ulpgrad.formats import Format, bfloat16, float16
from ulpgrad.kernels import gpu
from ulpgrad.kernels.cuda_compile import Kernel, c_type
from ulpgrad.kernels.matmul import cuda_call, spec
from ulpgrad.kernels.registry import Request, kernel

FORMATS: tuple[Format, ...] = (float16, bfloat16)
CHUNK = 8  # values that one asynchronous copy moves
SHARED = 128 * (128 + 8) * 4  # the tiles of four stages, and later the sums, whose lines are padded
# By format, and by whether neighbours in memory are rows of a, and columns of b.
KERNELS = {
    (f, a_along, b_along): Kernel(
        "matmul_matrix.cu", f"matmul_matrix<{c_type(f)}, {str(a_along).lower()}, {str(b_along).lower()}>", since=80
    )
    for f in FORMATS
    for a_along in (False, True)
    for b_along in (False, True)
}


def _where(request: Request) -> str | None:
    return KERNELS[float16, False, False].refusal()


def _chunked(x: Any, shape: tuple[int, ...]) -> tuple[Any, bool]:
    """x as [stack, rows, columns] in lines of whole chunks, with zeros behind its values; and whether its columns are lines."""
    x = cuda_call.stacked(x, shape)
    steps = [step // x.itemsize for step in x.strides]
    turned = steps[1] == 1 and steps[2] != 1
    size, other = (x.shape[1], steps[2]) if turned else (x.shape[2], steps[1])
    lies_well = 1 in steps[1:] and all(n % CHUNK == 0 for n in (size, other, steps[0]))
    if lies_well and x.data.ptr % (CHUNK * x.itemsize) == 0:
        return x, turned
    lines = x.swapaxes(1, 2) if turned else x
    whole = gpu.xp().zeros((*lines.shape[:2], -(-size // CHUNK) * CHUNK), x.dtype)
    whole[..., :size] = lines
    found = whole[..., :size]
    return (found.swapaxes(1, 2) if turned else found), turned


def _multiply(form: Format, a: Any, b: Any) -> Any:
    shape = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    (a, a_along), (b, b_turned) = _chunked(a, shape), _chunked(b, shape)
    found = cuda_call.multiply(KERNELS[form, a_along, not b_turned], (128, 128), (256, 1, 1), a, b, shared=SHARED)
    return found.reshape(*shape, *found.shape[-2:])


@kernel(spec.matmul, "cuda/cuda-matrix", rank=36, formats=FORMATS, where=_where, build=True)
def matmul(request: Request) -> Callable[..., Any]:
    form = request.formats[0]
    assert form is not None
    return partial(_multiply, form)
