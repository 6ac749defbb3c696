"""One loop in int64 for each kind of operation, where no value on the way needs more: operands are read once, nothing between
is stored. To nearest even only, as the defaults are. Its limit: vectors of int64 hold a quarter of the 16-bit words they could.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ulpgrad.formats import INTEGERS, Array
from ulpgrad.kernels.fixed import spec
from ulpgrad.kernels.fixed.cut import Cut
from ulpgrad.kernels.fixed.numpy_int64 import fits as fits_int64
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.registry import Request, kernel


def fits(request: Request) -> str | None:
    """Why a call is not for these loops, or None."""
    cut: Cut = request.params["cut"]
    if not cut.plain:
        return "takes calls that round to nearest even and report nothing"
    return fits_int64(request)


def fits_quotient(request: Request) -> str | None:
    """The same of a quotient, which is rounded whether bits are dropped or not."""
    if request.params["cut"].rounding != "nearest_even":
        return "takes quotients that round to nearest even"
    return fits(request)


@jit()
def _limited(v, low, high, wrap):  # type: ignore[no-untyped-def]
    if wrap:
        return ((v - low) & (high - low)) + low
    return low if v < low else high if v > high else v


@jit()
def _cut(v, drop, low, high, wrap):  # type: ignore[no-untyped-def]
    if drop > 0:
        v = (v + (np.int64(1) << (drop - 1)) - 1 + ((v >> drop) & 1)) >> drop
    else:
        v = v << -drop
    return _limited(v, low, high, wrap)


@jit(parallel=True)
def _added(a, b, left, right, drop, low, high, wrap, out):  # type: ignore[no-untyped-def]
    for i in prange(out.size):
        out[i] = _cut((np.int64(a[i]) << left) + (np.int64(b[i]) << right), drop, low, high, wrap)


@jit(parallel=True)
def _subtracted(a, b, left, right, drop, low, high, wrap, out):  # type: ignore[no-untyped-def]
    for i in prange(out.size):
        out[i] = _cut((np.int64(a[i]) << left) - (np.int64(b[i]) << right), drop, low, high, wrap)


@jit(parallel=True)
def _multiplied(a, b, drop, low, high, wrap, out):  # type: ignore[no-untyped-def]
    for i in prange(out.size):
        out[i] = _cut(np.int64(a[i]) * np.int64(b[i]), drop, low, high, wrap)


@jit(parallel=True)
def _divided(a, b, left, right, _, low, high, wrap, out):  # type: ignore[no-untyped-def]
    for i in prange(out.size):
        v, divisor = np.int64(a[i]) << left, np.int64(b[i]) << right
        floor = v // divisor
        twice, size = 2 * abs(v - floor * divisor), abs(divisor)
        up = twice > size or (twice == size and floor & 1 == 1)
        out[i] = _limited(floor + up, low, high, wrap)


@jit(parallel=True)
def _divided_in_floats(a, b, left, right, _, low, high, wrap, out):  # type: ignore[no-untyped-def]
    """Of words below 2^32: a quotient that is no tie is further from one than float64 rounds."""
    for i in prange(out.size):
        v, divisor = np.float64(np.int64(a[i]) << left), np.float64(np.int64(b[i]) << right)
        out[i] = _limited(np.int64(np.rint(v / divisor)), low, high, wrap)


@jit(parallel=True)
def _rescaled(x, negates, drops_sign, drop, low, high, wrap, out):  # type: ignore[no-untyped-def]
    for i in prange(out.size):
        v = np.int64(x[i])
        out[i] = _cut(-v if negates or (drops_sign and v < 0) else v, drop, low, high, wrap)


def _run(loop: Callable[..., None], operands: tuple[Array, ...], cut: Cut, *places: int) -> Array:
    """A loop over flat operands. Words of two operands that differ become int64 first: each mixture would be compiled by
    itself."""
    shape, word = np.broadcast_shapes(*(x.shape for x in operands)), operands[0].dtype
    if any(x.dtype != word for x in operands):
        word = np.dtype(np.int64)
    flat = (np.ascontiguousarray(np.broadcast_to(x, shape), word).reshape(-1) for x in operands)
    codes = np.empty(shape, cut.out.storage)
    numbers = (np.int64(v) for v in (*places, cut.drop, cut.low, cut.high))
    loop(*flat, *numbers, cut.wrap, codes.reshape(-1))
    return codes


@kernel(spec.add, "cpu/numba-fused", rank=20, formats=INTEGERS, where=fits)
def add(a: Array, b: Array, words: Array | None, *, left: int, right: int, subtract: bool, cut: Cut) -> Array:
    return _run(_subtracted if subtract else _added, (a, b), cut, left, right)


@kernel(spec.multiply, "cpu/numba-fused", rank=20, formats=INTEGERS, where=fits)
def multiply(a: Array, b: Array, words: Array | None, *, cut: Cut) -> Array:
    return _run(_multiplied, (a, b), cut)


@kernel(spec.divide, "cpu/numba-fused", rank=20, formats=INTEGERS, where=fits_quotient)
def divide(a: Array, b: Array, words: Array | None, *, left: int, right: int, cut: Cut) -> Array:
    return _run(_divided_in_floats if cut.width == 32 else _divided, (a, b), cut, left, right)


@kernel(spec.rescale, "cpu/numba-fused", rank=20, formats=INTEGERS, where=fits)
def rescale(x: Array, words: Array | None, *, sign: str, cut: Cut) -> Array:
    return _run(_rescaled, (x,), cut, sign == "negate", sign == "absolute")
