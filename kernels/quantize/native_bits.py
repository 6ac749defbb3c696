"""Rounding on the bits in C++: values are read once and codes written once, in vector lanes, whatever the mode. Limited by
memory for 8-bit floats to nearest even, by the Philox rounds for stochastic rounding."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array, Fixed, Float, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.quantize import spec
from ulpgrad.kernels.quantize.counts import native_grid, tally
from ulpgrad.kernels.quantize.grid import as_stored, has_nan, options, refusal
from ulpgrad.kernels.registry import Request, kernel


def _where(request: Request) -> str | None:
    return refusal(request.params["dtype"], request.params["overflow"])


def _float(x: Array, code_bytes: int, dtype: Float, rounding: str, overflow: str | None, subnormals: bool, key: int,
           counter: int, random_bits: int) -> Array | None:  # fmt: skip
    """Codes, or with code_bytes=0 values; None where the format's own `encode` will raise."""
    if overflow == "raise":
        overflowed, _, _, _, infinite = tally(x, dtype, rounding, subnormals, key, counter, random_bits)
        if overflowed or infinite:
            return None
    known = native_grid(dtype, rounding, overflow, subnormals)
    mode, stream = options(rounding, counter, key, random_bits)
    out: Array = native.module().quantize_float(x, known, mode, code_bytes, stream)
    return None if dtype.nan_code is None and has_nan(x, out if code_bytes else None, dtype) else out


def _fixed(x: Array, code_bytes: int, dtype: Fixed, rounding: str, overflow: str | None, subnormals: bool, key: int,
           counter: int, random_bits: int) -> Array | None:  # fmt: skip
    mode, stream = options(rounding, counter, key, random_bits)
    out, wild = native.module().quantize_fixed(
        x, dtype.fraction_bits, dtype.bits, dtype.signed, overflow == "wrap", mode, code_bytes, stream
    )
    return None if wild else out


@kernel(
    spec.quantize, "cpu/native-bits", rank=50, formats=[float32, float64], where=_where, contiguous=True, build=True
)
def build(request: Request) -> Any:
    form: Any = request.params["dtype"]
    convert: Any = _float if isinstance(form, Float) else _fixed

    def run(x: Array, **given: Any) -> Array:
        out = convert(x, form.itemsize, **given)
        return np.asarray(spec.encoded(x, **given)) if out is None else as_stored(out, form)

    return run


@kernel(
    spec.fake_quantize,
    "cpu/native-bits",
    rank=50,
    formats=[float32, float64],
    where=_where,
    contiguous=True,
    build=True,
)
def build_fake(request: Request) -> Any:
    form: Any = request.params["dtype"]
    convert: Any = _float if isinstance(form, Float) else _fixed

    def run(x: Array, **given: Any) -> Array:
        out: Array | None = convert(x, 0, **given)
        if out is None:
            out = form.exact(spec.encoded(x, **given)).astype(x.dtype)  # raises
        return out

    return run
