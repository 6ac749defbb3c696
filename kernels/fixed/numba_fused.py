"""One loop in int64 for each kind of operation, where no value on the way needs more: operands are read once, nothing between
is stored. To nearest even only, the mode of the defaults. Its limit: int64 makes vectors of 16-bit words four times longer.
"""

from __future__ import annotations

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
    if cut.report or (cut.drop > 0 and cut.rounding != "nearest_even"):
        return "takes calls that round to nearest even and report nothing"
    return fits_int64(request)


@jit()
def _cut(v, drop, low, high, wrap):  # type: ignore[no-untyped-def]
    if drop > 0:
        v = (v + (np.int64(1) << (drop - 1)) - 1 + ((v >> drop) & 1)) >> drop
    else:
        v = v << -drop
    if wrap:
        return ((v - low) & (high - low)) + low
    return low if v < low else high if v > high else v


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


def _flat(*operands: Array) -> tuple[list[Array], tuple[int, ...]]:
    shape = np.broadcast_shapes(*(x.shape for x in operands))
    return [np.ascontiguousarray(np.broadcast_to(x, shape)).reshape(-1) for x in operands], shape


def _numbers(cut: Cut) -> tuple[np.int64, np.int64, np.int64, bool]:
    return np.int64(cut.drop), np.int64(cut.low), np.int64(cut.high), cut.wrap


@kernel(spec.add, "cpu/numba-fused", rank=20, formats=INTEGERS, where=fits)
def add(a: Array, b: Array, words: Array | None, *, left: int, right: int, subtract: bool, cut: Cut) -> Array:
    (first, second), shape = _flat(a, b)
    out = np.empty(first.size, cut.out.storage)
    (_subtracted if subtract else _added)(first, second, np.int64(left), np.int64(right), *_numbers(cut), out)
    return out.reshape(shape)


@kernel(spec.multiply, "cpu/numba-fused", rank=20, formats=INTEGERS, where=fits)
def multiply(a: Array, b: Array, words: Array | None, *, cut: Cut) -> Array:
    (first, second), shape = _flat(a, b)
    out = np.empty(first.size, cut.out.storage)
    _multiplied(first, second, *_numbers(cut), out)
    return out.reshape(shape)
