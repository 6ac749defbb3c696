"""Each thread keeps 8 x 8 values of C in registers: 16 values from shared memory serve 64 multiply-adds, where the rung below
loads two for one. Memory is read in vectors of four values; while one slice is multiplied the next is on its way into registers
and then into the other half of shared memory, so that one barrier per slice is left and loads are waited for only at the end.
Next limit: the CUDA cores themselves, 128 multiply-adds a cycle on each SM, where its matrix units do many times that in 16
bits; and, short of it, the few threads that fit on an SM with so many registers each, and what they wait for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.formats import Format, bfloat16, float16, float32
from ulpgrad.kernels.matmul import cuda_call, spec
from ulpgrad.kernels.registry import Request, kernel

FEW = 128  # tiles of 128 x 128 that leave a GPU idle: smaller ones then
# Values of c that a thread has on a side. Integers are multiplied at half the rate of float32 and fill it with less.
SIDES: dict[Format, tuple[int, ...]] = dict.fromkeys(cuda_call.FORMATS, (4,))
SIDES |= {float32: (8, 4), float16: (8, 4), bfloat16: (8, 4)}
KERNELS = {
    (f, side): one
    for side in (8, 4)
    for f, one in cuda_call.kernels(
        "matmul_registers.cu", "matmul_registers", str(side), formats=[f for f, sides in SIDES.items() if side in sides]
    ).items()
}


@kernel(spec.matmul, "cuda/cuda-registers", rank=34, formats=cuda_call.FORMATS, build=True)
def matmul(request: Request) -> Callable[..., Any]:
    form = request.formats[0]
    assert form is not None

    def run(a: Any, b: Any) -> Any:
        shape = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        tiles = -(-a.shape[-2] // 128) * -(-b.shape[-1] // 128) * int(np.prod(shape))
        side = SIDES[form][0 if tiles >= FEW else -1]
        return cuda_call.multiply(KERNELS[form, side], (16 * side, 16 * side), (256, 1, 1), a, b)

    return run
