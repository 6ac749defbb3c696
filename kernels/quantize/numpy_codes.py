"""Codes as the format itself makes them: a dozen passes of NumPy over float64. Exact, and the road of formats that no
compiled loop knows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array, Format, float32, float64
from ulpgrad.kernels.quantize import spec
from ulpgrad.kernels.registry import Request, kernel


@kernel(spec.quantize, "cpu/numpy-codes", rank=10, formats=spec.SOURCES, build=True)
def build(request: Request) -> Any:
    source = request.formats[0]
    assert source is not None

    def run(x: Array, **options: Any) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(spec.encoded(source.exact(x), **options))

    return run


@kernel(spec.fake_quantize, "cpu/numpy-codes", rank=10, formats=[float32, float64])
def fake(x: Array, *, dtype: Format, **options: Any) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(dtype.exact(spec.encoded(x, dtype=dtype, **options)).astype(x.dtype))
