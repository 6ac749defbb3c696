"""float32 and the floats of 16 bits in one parallel pass over the bits, straight-line code on whole numbers, which LLVM turns
into vectors: limited by memory alone. Numba cannot read float16, and need not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.formats import Array, Format, bfloat16, float16, float32
from ulpgrad.kernels.cast import spec
from ulpgrad.kernels.cast.convert import of_request
from ulpgrad.kernels.numba_jit import Jit, jit, prange
from ulpgrad.kernels.registry import Request, kernel

NARROWEST, BEYOND, INFINITY = np.uint32(113 << 23), np.uint32(0x477FF000), np.uint32(0x7F800000)  # 2^-14, 65520
HALF, HALF_BITS = np.float32(0.5), np.uint32(126 << 23)  # its last place is float16's smallest number
LIFT = np.float32(2.0**112)  # between the exponents of both


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


@jit(parallel=True)
def narrow_half(bits: Any, out: Any) -> None:
    """Below 2^-14 an addition of floats rounds."""
    for i in prange(bits.size):
        size = np.uint32(bits[i] & np.uint32(0x7FFFFFFF))
        near = np.uint32(size + np.uint32(0xFFF) + ((size >> np.uint32(13)) & np.uint32(1)))
        normal = np.uint32((near >> np.uint32(13)) - np.uint32(112 << 10))
        small = np.uint32(np.float32(size.view(np.float32) + HALF).view(np.uint32) - HALF_BITS)
        code = small if size < NARROWEST else normal
        code = np.uint32(0x7C00) if size >= BEYOND else code
        code = np.uint32(0x7E00) if size > INFINITY else code
        out[i] = code | ((bits[i] >> np.uint32(16)) & np.uint32(0x8000))


@jit(parallel=True)
def widen_half(codes: Any, out: Any) -> None:
    """A multiplication makes subnormal numbers normal."""
    for i in prange(codes.size):
        code = np.uint32(codes[i])
        size = np.uint32((code & np.uint32(0x7FFF)) << np.uint32(13))
        value = np.float32(size.view(np.float32) * LIFT).view(np.uint32)
        value = np.uint32(size | INFINITY) if (code & np.uint32(0x7FFF)) >= np.uint32(0x7C00) else value
        out[i] = value | ((code & np.uint32(0x8000)) << np.uint32(16))


LOOPS: dict[tuple[Format, Format], Jit] = {
    (float32, bfloat16): narrow, (bfloat16, float32): widen, (float32, float16): narrow_half, (float16, float32): widen_half,
}  # fmt: skip


def converted(x: Array, source: Format, target: Format) -> Array:
    """Stored values of any layout, in a format for which there is a loop."""
    out = np.empty(x.shape, target.storage)
    given = np.ascontiguousarray(x).reshape(-1).view(f"u{x.itemsize}")
    LOOPS[source, target](given, out.reshape(-1).view(f"u{out.itemsize}"))
    return out


def _has_loop(request: Request) -> str | None:
    pair = of_request(request.formats, request.params)
    return None if pair in LOOPS else f"has no loop from {pair[0]} to {pair[1]}"


@kernel(spec.cast, "cpu/numba-bits", rank=20, formats=[float32, bfloat16, float16], where=_has_loop, build=True)
def build(request: Request) -> Callable[..., Array]:
    pair = of_request(request.formats, request.params)

    def run(x: Array, *, dtype: Format) -> Array:
        return converted(x, *pair)

    return run
