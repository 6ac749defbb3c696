"""What the native rungs of `linear` share: rows for the extension, and results in formats that it does not round to itself."""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array, Format, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.cast import convert
from ulpgrad.kernels.matmul import layout
from ulpgrad.kernels.matmul.prepacked import Prepacked


def linear(
    isa: str, dots: bool, x: Array, weight: Array, bias: Array | None, scale: Array | None = None,
    residual: Array | None = None, *, activation: str | None = None, factor: float = 1.0, dtype: Format | None = None,
    packed: Prepacked | None = None,
) -> Array:  # fmt: skip
    """The extension's `linear` of an instruction set, for x of any number of axes."""
    if (
        packed is None and scale is None and residual is None and dtype is None and factor == 1.0
    ):  # the usual call, the short way
        out: Array = native.module().linear(layout.rows(x), weight, bias, activation or "", isa, dots)
    else:
        rounds = dtype is not None and dtype.storage != x.dtype and x.dtype != np.float64
        out = native.module().linear(
            layout.rows(x), weight, bias, activation or "", isa, dots, scale=scale, factor=factor,
            residual=None if residual is None else layout.rows(residual), stored=dtype.name if rounds and dtype else "",
            packed=None if packed is None else packed.units(isa, dots, weight),
        )  # fmt: skip
        if dtype is not None and x.dtype == np.float64:
            out = convert(out, float64, dtype)
    return out if x.ndim == 2 else out.reshape(*x.shape[:-1], weight.shape[0])
