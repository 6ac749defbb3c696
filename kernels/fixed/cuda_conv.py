"""Convolution of codes on the matrix units (kernels/integer/cuda_matrix.py), whose sums are cut before they are written: no
accumulator passes through memory, but for those of 64 bits.

Next limit: a thread writes one code at a time, of one byte or two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.formats import INTEGERS
from ulpgrad.formats.rounding import ROUNDINGS
from ulpgrad.kernels.fixed import spec
from ulpgrad.kernels.fixed.cut import Cut
from ulpgrad.kernels.integer import cuda_matrix
from ulpgrad.kernels.integer.accumulator import INT64, as_accumulator
from ulpgrad.kernels.registry import Request, kernel


def _refusal(request: Request) -> str | None:
    if request.params["cut"].width not in (32, 64):
        return "takes calls whose intermediate values fit 64 bits"
    return cuda_matrix.refusal(request)


@kernel(spec.conv2d, "cuda/cuda-matrix", rank=90, formats=INTEGERS, where=_refusal, build=True)
def conv2d(request: Request) -> Callable[..., Any]:
    exact = as_accumulator(request.params.get("accumulator")) == INT64

    def run(
        x: Any, weight: Any, bias: Any, words: Any, *, left: int, right: int, cut: Cut, accumulator: Any = None,
        pad: int = 0, **geometry: Any,
    ) -> Any:  # fmt: skip
        y = cuda_matrix.result_of(x, weight, cut.out.storage, geometry)
        outside = cuda_matrix.result_of(x, weight, np.bool_, geometry) if cut.report else None
        drawn = words if cut.rounding == "stochastic" and cut.drop > 0 else None
        if y.size:
            codes = cuda_matrix.Codes(
                bias, words=drawn, outside=outside, low=cut.low, high=cut.high, left=left, right=right, drop=cut.drop,
                rounding=ROUNDINGS.index(cut.rounding), random_bits=cut.random_bits, wraps=cut.wrap,
            )  # fmt: skip
            cuda_matrix.Operands(x, weight, pad, geometry).convolve(y, exact, codes)
        return y if outside is None else (y, outside)

    return run
