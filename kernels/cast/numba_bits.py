"""float32 and bfloat16 in one parallel pass over the bits: limited by memory alone. float16 is missing, Numba cannot read it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.formats import Array, Format, bfloat16, float32
from ulpgrad.kernels.cast import spec
from ulpgrad.kernels.cast.convert import of_request
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.registry import Request, kernel


@jit(parallel=True)
def narrow(bits: Any, out: Any) -> None:
    for i in prange(bits.size):
        b = bits[i]
        quiet = (b >> np.uint32(16)) | np.uint32(0x40)
        rounded = (b + np.uint32(0x7FFF) + ((b >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        out[i] = quiet if (b & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000) else rounded


@jit(parallel=True)
def widen(codes: Any, out: Any) -> None:
    for i in prange(codes.size):
        out[i] = np.uint32(codes[i]) << np.uint32(16)


def _only_bfloat16(request: Request) -> str | None:
    pair = of_request(request.formats, request.params)
    if pair in ((float32, bfloat16), (bfloat16, float32)):
        return None
    return f"converts between float32 and bfloat16, not {pair[0]} to {pair[1]}"


@kernel(
    spec.cast, "cpu/numba-bits", rank=20, formats=[float32, bfloat16], where=_only_bfloat16, contiguous=True, build=True
)
def build(request: Request) -> Callable[..., Array]:
    narrows = request.formats[0] is float32

    def run(x: Array, *, dtype: Format) -> Array:
        out = np.empty(x.shape, np.uint16 if narrows else np.uint32)
        (narrow if narrows else widen)(x.reshape(-1).view(np.uint32 if narrows else np.uint16), out.reshape(-1))
        return out if narrows else out.view(np.float32)

    return run
