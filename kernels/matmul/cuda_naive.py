"""As it is written down: a thread for each value of C goes along a row of A and down a column of B. A warp lies along a row of
C, so that its threads read neighbours of B together, and one value of A serves them all. Next limit: two loads for each
multiply-add; every value is fetched again for each of the rows and columns that it serves, and the load units are busy
long before the arithmetic ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ulpgrad.kernels.matmul import cuda_call, spec
from ulpgrad.kernels.registry import Request, kernel

KERNELS = cuda_call.kernels("matmul_naive.cu", "matmul_naive")


@kernel(spec.matmul, "cuda/cuda-naive", rank=30, formats=cuda_call.FORMATS, build=True)
def matmul(request: Request) -> Callable[..., Any]:
    form = request.formats[0]
    assert form is not None
    return partial(cuda_call.multiply, KERNELS[form], (8, 32), (32, 8, 1))
