"""A Philox block in each lane: ten rounds stay in registers, and the words of a block are stored side by side. Normal values are
the CPU's bit for bit, by the same series without fused operations.

Next limit: the 32 x 32 bit products, a quarter of the rate of other integer operations; for normal values float64.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ulpgrad.formats import Float, bfloat16, float16, float32, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.cast.triton_bits import convert
from ulpgrad.kernels.random import spec
from ulpgrad.kernels.random.philox import threshold, uniform_bits
from ulpgrad.kernels.random.triton_philox import block, in_order, stream, words
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton, typed

BLOCK = 1024
PAIRS = 512  # of normal values: each takes some forty registers

# As in numba_blocks.py: ln 2 in two parts, what rounds to whole numbers when added and taken off, the code of sqrt(1/2)
LN2_HIGH, LN2_LOW = tl.constexpr(0.6931471803691238), tl.constexpr(1.9082149292705877e-10)
ROUNDER, HALF_SQRT_BITS = tl.constexpr(1.5 * 2.0**52), tl.constexpr(0x3FE6A09E667F3BCD)
QUARTER_TURN = tl.constexpr(math.pi / 2)
LOGARITHM = tl.constexpr(tuple(1 / n for n in range(21, 2, -2)))
SINE = tl.constexpr(tuple((-1) ** (n // 2) / math.factorial(n) for n in range(15, 2, -2)))
COSINE = tl.constexpr(tuple((-1) ** (n // 2) / math.factorial(n) for n in range(16, 1, -2)))


@triton.jit
def _bits(out, n, k0, k1, c0, c1, c2, c3, BLOCK: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    tl.store(out + first + lane, words(first, k0, k1, c0, c1, c2, c3, BLOCK), mask=lane < n - first)


@triton.jit
def _integer53(a, b):
    """Two words as a 53-bit integer, exact in float64."""
    return (a >> 5).to(tl.float64) * 67108864.0 + (b >> 6).to(tl.float64)


@triton.jit
def _uniform(out, n, k0, k1, c0, c1, c2, c3, DIGITS: tl.constexpr, BLOCK: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    if DIGITS > 32:
        w0, w1, w2, w3 = block(first // 2 + tl.arange(0, BLOCK // 2), k0, k1, c0, c1, c2, c3)
        scale = tl.full([], 2.0**-53, tl.float64)
        value = tl.interleave(_integer53(w0, w1) * scale, _integer53(w2, w3) * scale)
    else:
        value = (words(first, k0, k1, c0, c1, c2, c3, BLOCK) >> (32 - DIGITS)).to(tl.float32) * (2.0**-DIGITS)
    tl.store(out + first + lane, value, mask=lane < n - first)


@triton.jit
def _series(z, TERMS: tl.constexpr, COUNT: tl.constexpr):
    """A polynomial by Horner's rule, the highest coefficient first."""
    total = tl.full(z.shape, TERMS[0], tl.float64)
    for i in tl.static_range(1, COUNT):
        total = tl.full([], TERMS[i], tl.float64) + z * total
    return total


@triton.jit
def _pair(a, width, turns):
    """sqrt(-2 ln(a 2^-width)) times cosine and sine of `turns` quarter turns; a is a whole number of at least 1."""
    bits = a.to(tl.int64, bitcast=True)
    exponent = (bits - HALF_SQRT_BITS) >> 52
    f = (bits - (exponent << 52)).to(tl.float64, bitcast=True) - 1.0
    s = f / (2.0 + f)
    z = s * s
    series = _series(z, LOGARITHM, 10)
    k = (exponent - width).to(tl.float64)
    high, low = tl.full([], LN2_HIGH, tl.float64), tl.full([], LN2_LOW, tl.float64)
    radius = tl.sqrt(-2.0 * (k * high + (2.0 * s + (2.0 * s * (z * series) + k * low))))

    rounder = tl.full([], ROUNDER, tl.float64)
    shifted = turns + rounder
    quadrant = shifted.to(tl.int64, bitcast=True)
    r = (turns - (shifted - rounder)) * tl.full([], QUARTER_TURN, tl.float64)
    q = r * r
    sine = r + r * (q * _series(q, SINE, 7))
    cosine = 1.0 + q * _series(q, COSINE, 8)
    swap = (quadrant & 1) != 0
    x = radius * tl.where(swap, sine, cosine)
    y = radius * tl.where(swap, cosine, sine)
    return tl.where(((quadrant + 1) & 2) != 0, -1.0, 1.0) * x, tl.where((quadrant & 2) != 0, -1.0, 1.0) * y


@triton.jit
def _normal(out, n, k0, k1, c0, c1, c2, c3, DOUBLE: tl.constexpr, PAIRS: tl.constexpr):
    """PAIRS pairs: of a word or, in float64, of two for each value."""
    first = tl.program_id(0).to(tl.int64) * (2 * PAIRS)
    lane = tl.arange(0, 2 * PAIRS)
    if DOUBLE:
        w0, w1, w2, w3 = block(first // 2 + tl.arange(0, PAIRS), k0, k1, c0, c1, c2, c3)
        x, y = _pair(_integer53(w0, w1) + 1.0, 53, _integer53(w2, w3) * tl.full([], 2.0**-51, tl.float64))
        value = tl.interleave(x, y)
    else:
        w0, w1, w2, w3 = block(first // 4 + tl.arange(0, PAIRS // 2), k0, k1, c0, c1, c2, c3)
        scale = tl.full([], 2.0**-30, tl.float64)
        x0, y0 = _pair(w0.to(tl.float64) + 1.0, 32, w1.to(tl.float64) * scale)
        x1, y1 = _pair(w2.to(tl.float64) + 1.0, 32, w3.to(tl.float64) * scale)
        value = in_order(x0, y0, x1, y1)
    tl.store(out + first + lane, value.to(out.dtype.element_ty), mask=lane < n - first)


@triton.jit
def _dropout(x, out, n, limit, k0, k1, c0, c1, c2, c3, SCALE: tl.constexpr, BLOCK: tl.constexpr):
    first = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    mask = lane < n - first
    kept = words(first, k0, k1, c0, c1, c2, c3, BLOCK).to(tl.int64) >= limit
    value = tl.load(x + first + lane, mask=mask, other=0.0)
    if value.dtype != tl.float64:
        value = value.to(tl.float32)
    value = tl.where(kept, value * tl.full([], SCALE, value.dtype), 0.0)
    tl.store(out + first + lane, value.to(out.dtype.element_ty), mask=mask)


def _drawn(run: Any, block: int, key: int, counter: int, size: int, dtype: Any, **constants: Any) -> Any:
    """A row that a kernel fills from the stream."""
    out = gpu.xp().empty(size, dtype)
    launch(run, (cdiv(size, block),), out, size, *stream(key, counter), num_warps=4, **constants)
    return out


@kernel(spec.random_bits, "cuda/triton-blocks", rank=40, formats=[])
def random_bits(*, key: int, counter: int, size: int) -> Any:
    return _drawn(_bits, BLOCK, key, counter, size, np.uint32, BLOCK=BLOCK)


def _narrowed(values: Any, dtype: Float) -> Any:
    return convert(values, float32, dtype) if dtype.bits < 32 else values


@kernel(spec.random_uniform, "cuda/triton-blocks", rank=40, formats=[])
def random_uniform(*, key: int, counter: int, size: int, dtype: Float) -> Any:
    wide = np.float64 if dtype is float64 else np.float32
    return _narrowed(_drawn(_uniform, BLOCK, key, counter, size, wide, DIGITS=uniform_bits(dtype), BLOCK=BLOCK), dtype)


@kernel(spec.random_normal, "cuda/triton-blocks", rank=40, formats=[])
def random_normal(*, key: int, counter: int, size: int, dtype: Float) -> Any:
    is_double = dtype is float64
    drawn = _drawn(_normal, 2 * PAIRS, key, counter, size, np.float64 if is_double else np.float32, DOUBLE=is_double,
                   PAIRS=PAIRS, enable_fp_fusion=False)  # fmt: skip
    return _narrowed(drawn, dtype)


@kernel(
    spec.dropout,
    "cuda/triton-blocks",
    rank=40,
    formats=[float16, bfloat16, float32, float64],
    contiguous=True,
    build=True,
)
def dropout(request: Request) -> Any:
    form = request.formats[0]
    assert form is not None

    def run(x: Any, *, p: float, key: int, counter: int) -> Any:
        out = gpu.xp().empty(x.shape, x.dtype)
        launch(_dropout, (cdiv(x.size, BLOCK),), typed(x, form), typed(out, form), x.size, threshold(p), *stream(key, counter),
               SCALE=spec.scale(p), BLOCK=BLOCK, num_warps=4)  # fmt: skip
        return out

    return run
