"""A block copies square tiles of A and B to shared memory, 32 x 32 values each, and its 1024 threads multiply them there: each
value is fetched from memory once where the rung below fetches it 32 times. What is transposed is turned on the way, so that
memory is read along its lines either way. Next limit: still two loads for each multiply-add, now from shared memory,
which gives a warp 32 words per cycle where its arithmetic would take 128 multiply-adds; and two barriers for each tile, at which
all wait for the slowest load."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ulpgrad.kernels.matmul import cuda_call, spec
from ulpgrad.kernels.registry import Request, kernel

KERNELS = cuda_call.kernels("matmul_tiles.cu", "matmul_tiles")


@kernel(spec.matmul, "cuda/cuda-tiles", rank=32, formats=cuda_call.FORMATS, build=True)
def matmul(request: Request) -> Callable[..., Any]:
    form = request.formats[0]
    assert form is not None
    return partial(cuda_call.multiply, KERNELS[form], (32, 32), (32, 32, 1))
