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


def _run(loop: Callable[..., None], a: Array, b: Array, cut: Cut, *places: int) -> Array:
    """A loop over flat operands. Words that differ all become int64 first: each mixture would be compiled by itself."""
    shape, out = np.broadcast_shapes(a.shape, b.shape), cut.out.storage
    word = out if a.dtype == b.dtype == out else np.dtype(np.int64)
    first, second = (np.ascontiguousarray(np.broadcast_to(x, shape), word).reshape(-1) for x in (a, b))
    codes = np.empty(first.size, word)
    numbers = (np.int64(v) for v in (*places, cut.drop, cut.low, cut.high))
    loop(first, second, *numbers, cut.wrap, codes)
    return codes.astype(out, copy=False).reshape(shape)


@kernel(spec.add, "cpu/numba-fused", rank=20, formats=INTEGERS, where=fits)
def add(a: Array, b: Array, words: Array | None, *, left: int, right: int, subtract: bool, cut: Cut) -> Array:
    return _run(_subtracted if subtract else _added, a, b, cut, left, right)


@kernel(spec.multiply, "cpu/numba-fused", rank=20, formats=INTEGERS, where=fits)
def multiply(a: Array, b: Array, words: Array | None, *, cut: Cut) -> Array:
    return _run(_multiplied, a, b, cut)
