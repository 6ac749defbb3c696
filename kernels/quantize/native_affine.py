"""Affine codes in C++: a division, a rounding by addition and a clamp in each vector lane. Limited by the divisions, which must
be those of float64 for ties to fall where the definition has them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Affine, Array, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.quantize import spec
from ulpgrad.kernels.registry import Request, kernel


def _where(request: Request) -> str | None:
    form, rounding, overflow = (request.params[name] for name in ("dtype", "rounding", "overflow"))
    if not isinstance(form, Affine):
        return f"converts to affine formats, not to {form.name}"
    if rounding != "nearest_even" or overflow not in (None, "saturate"):
        return f"rounds to nearest even and saturates; asked for {rounding}, overflow={overflow!r}"
    return None


def _runner(form: Affine, values: bool) -> Any:
    scale, zero_point = (np.atleast_1d(p).astype(np.float64) for p in (form.scale, form.zero_point))
    axis = -1 if form.axis is None else form.axis
    is_signed = form.base == "int8"

    def run(x: Array, **given: Any) -> Any:
        form.along(form.scale, x.ndim, x.shape)  # raises where the channels differ
        out, has_nan = native.module().quantize_affine(
            x, scale, zero_point, axis=axis, is_signed=is_signed, values=values
        )
        return spec.encoded(x, **given) if has_nan else out  # raises

    return run


@kernel(
    spec.quantize, "cpu/native-affine", rank=50, formats=[float32, float64], where=_where, contiguous=True, build=True
)
def build(request: Request) -> Any:
    return _runner(request.params["dtype"], values=False)


@kernel(
    spec.fake_quantize,
    "cpu/native-affine",
    rank=50,
    formats=[float32, float64],
    where=_where,
    contiguous=True,
    build=True,
)
def build_fake(request: Request) -> Any:
    return _runner(request.params["dtype"], values=True)
