"""Columns of the result side by side: each code of A multiplies a row of B, which vectorises, and so does what becomes of the
sums. Next limit: 64-bit sums, and products one by one, where the CPU has instructions for four at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.kernels.integer import spec
from ulpgrad.kernels.integer.accumulator import INT32, INT64, Accumulator, as_accumulator
from ulpgrad.kernels.matmul import layout
from ulpgrad.kernels.matmul.numba_integer import multiply
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.registry import Request, kernel


@jit(parallel=True)
def accumulate(
    a: Array, b: Array, c: Array, first: Array, chunk: int, shift: int, addend: int, flip: int, to_sign: int,
    bits: int, wraps: bool, notes: bool,
) -> None:  # fmt: skip
    """c = a @ b in an accumulator (see `constants`); `first`: with `notes`, the first k of each result that overflowed."""
    stack, m, n = c.shape
    k, spare = a.shape[2], 64 - bits
    high = (np.int64(1) << (bits - 1)) - 1
    low = -high - 1
    for task in prange(stack * m):
        s, i = task // m, task % m
        left, right, row = a[min(s, len(a) - 1), i], b[min(s, len(b) - 1)], c[s, i]
        total, sums = np.zeros(n, np.int64), np.empty(n, np.int64)
        for p0 in range(0, k, chunk):
            sums[:] = 0
            for p in range(p0, min(k, p0 + chunk)):
                scale, line = np.int64(left[p]), right[p]
                for j in range(n):
                    sums[j] += scale * line[j]
            if shift > 0:
                for j in range(n):
                    sums[j] = (sums[j] + (addend ^ (flip & ((sums[j] << to_sign) >> 63)))) >> shift
            elif shift < 0:
                for j in range(n):
                    sums[j] <<= -shift
            if wraps:
                for j in range(n):
                    total[j] += sums[j]
            elif notes:
                for j in range(n):
                    more = total[j] + sums[j]
                    if (sums[j] < low or sums[j] > high or more < low or more > high) and first[s, i, j] < 0:
                        first[s, i, j] = p0
                    total[j] = min(max(more, low), high)
            else:
                for j in range(n):
                    total[j] = min(max(total[j] + min(max(sums[j], low), high), low), high)
        for j in range(n):
            row[j] = (total[j] << spare) >> spare


def constants(chosen: Accumulator) -> tuple[int, int, int]:
    """Rounding as (addend, flip, to_sign): the sum is shifted after `addend` is added to it, with the bits `flip` changed
    where the sum moved left by `to_sign` is negative: where the sum is, or where the last bit that stays is odd."""
    if chosen.shift <= 0:
        return 0, 0, 0
    half, odd = 1 << (chosen.shift - 1), 63 - chosen.shift
    mask, near = 2 * half - 1, half ^ (half - 1)
    return {
        "down": (0, 0, 0),
        "up": (mask, 0, 0),
        "toward_zero": (0, mask, 0),
        "to_odd": (mask, mask, odd),
        "nearest_away": (half, near, 0),
        "nearest_even": (half - 1, near, odd),
    }[chosen.rounding]


def product(a: Array, b: Array, accumulator: Any) -> Array:
    chosen = as_accumulator(accumulator)
    a, b, shape = layout.stacks(*(np.ascontiguousarray(x, np.int16) for x in (a, b)))  # one type, so one compilation
    dtype = spec.result_dtype(chosen)
    plain = chosen in (INT32, INT64)
    c = np.zeros((math.prod(shape), a.shape[1], b.shape[2]), dtype if plain else np.int64)
    if plain:
        multiply(a, b, c)
        return c.reshape(*shape, *c.shape[1:])
    notes = chosen.overflow == "raise"
    first = np.full(c.shape if notes else (1, 1, 1), -1)
    chunk, wraps = min(chosen.chunk, max(1, a.shape[2])), chosen.overflow == "wrap" or chosen.bits == 64
    accumulate(a, b, c, first, chunk, chosen.shift, *constants(chosen), chosen.bits, wraps, notes)
    at = np.argwhere(first >= 0)
    if len(at):
        index = (*(int(i) for i in np.unravel_index(at[0, 0], shape)), int(at[0, 1]), int(at[0, 2]))
        raise spec.overflowed("integer_matmul", chosen, index, int(first[tuple(at[0])]))
    return c.reshape(*shape, *c.shape[1:]).astype(dtype, copy=False)


def _needs_no_more(request: Request) -> str | None:
    a, b = request.arrays
    return _reason(request, a.shape[-1], a, b)


def _reason(request: Request, k: int, a: Any, b: Any) -> str | None:
    chosen = as_accumulator(request.params.get("accumulator"))
    if chosen in (INT32, INT64) or spec.fits_int64(chosen, k, a.dtype, b.dtype):
        return None
    return f"64 bits do not hold every step of {chosen}"


@kernel(spec.integer_matmul, "cpu/numba-columns", rank=30, formats=spec.FORMATS, where=_needs_no_more)
def integer_matmul(a: Array, b: Array, *, accumulator: Any = None) -> Array:
    return product(a, b, accumulator)


@kernel(
    spec.integer_conv2d,
    "cpu/numba-columns",
    rank=30,
    formats=spec.FORMATS,
    where=lambda request: _reason(request, spec.taps(request.arrays[1]), *request.arrays),
    contiguous=True,
    idea="matmul's rung of this name on what each tap of the filter meets, written out (im2col).",
)
def integer_conv2d(x: Array, weight: Array, *, accumulator: Any = None, pad: int = 0, **geometry: Any) -> Array:
    return spec.conv2d_by_matmul(x, weight, **geometry, accumulator=accumulator, pad=pad, matmul=product)
