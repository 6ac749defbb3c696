"""One Philox block a loop turn, computed in 64-bit registers: only results are stored, any thread can start anywhere.

The logarithm, sine and cosine of the normal distribution are written out as series, since Numba's own are scalar calls:
the loop becomes vector code, and the values are those of the C++ rung bit for bit. Next limit: the 32 x 32 bit
products, of which a vector unit does half as many a cycle as it has lanes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ulpgrad.formats import Array, Float, float32, float64
from ulpgrad.kernels.cast.convert import convert
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.random import spec
from ulpgrad.kernels.random.philox import LOW64, MULTIPLIERS, WEYL, threshold, uniform_bits, words_per_value
from ulpgrad.kernels.registry import kernel

CHUNK = 4096  # blocks a thread takes at a time
MASK, HALF, FIVE, SIX = (np.uint64(v) for v in (0xFFFFFFFF, 32, 5, 6))
M0, M1 = (np.uint64(m) for m in MULTIPLIERS)
W0, W1 = (np.uint64(w) for w in WEYL)
ONE, ZERO = np.uint64(1), np.uint64(0)
RETRY = np.uint64(1 << 32)  # philox.RETRY, in the upper half of the counter


@jit(inline="always")
def _block(low: Any, high: Any, key: Any, j: Any) -> Any:
    index = low + np.uint64(j)
    upper = high + (ONE if index < low else ZERO)
    c0, c1, c2, c3 = index & MASK, index >> HALF, upper & MASK, upper >> HALF
    k0, k1 = key & MASK, key >> HALF
    for _ in range(10):
        p0, p1 = M0 * c0, M1 * c2
        c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1 & MASK, (p0 >> HALF) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return c0, c1, c2, c3


@jit(parallel=True)
def _bits(out: Array, low: Any, high: Any, key: Any) -> None:
    blocks = out.size // 4
    for chunk in prange((blocks + CHUNK - 1) // CHUNK):
        for j in range(chunk * CHUNK, min(blocks, (chunk + 1) * CHUNK)):
            w0, w1, w2, w3 = _block(low, high, key, j)
            out[4 * j], out[4 * j + 1], out[4 * j + 2], out[4 * j + 3] = w0, w1, w2, w3


@jit(parallel=True)
def _uniform(out: Array, low: Any, high: Any, key: Any, shift: Any, scale: float) -> None:
    blocks = out.size // 4
    for chunk in prange((blocks + CHUNK - 1) // CHUNK):
        for j in range(chunk * CHUNK, min(blocks, (chunk + 1) * CHUNK)):
            w0, w1, w2, w3 = _block(low, high, key, j)
            out[4 * j], out[4 * j + 1] = np.int64(w0 >> shift) * scale, np.int64(w1 >> shift) * scale
            out[4 * j + 2], out[4 * j + 3] = np.int64(w2 >> shift) * scale, np.int64(w3 >> shift) * scale


@jit(inline="always")
def _integer53(a: Any, b: Any) -> Any:
    return np.int64(a >> FIVE) * 67108864.0 + np.int64(b >> SIX)


@jit(parallel=True)
def _uniform53(out: Array, low: Any, high: Any, key: Any) -> None:
    blocks = out.size // 2
    for chunk in prange((blocks + CHUNK - 1) // CHUNK):
        for j in range(chunk * CHUNK, min(blocks, (chunk + 1) * CHUNK)):
            w0, w1, w2, w3 = _block(low, high, key, j)
            out[2 * j], out[2 * j + 1] = _integer53(w0, w1) * 2.0**-53, _integer53(w2, w3) * 2.0**-53


LN2_HIGH, LN2_LOW = (
    0.6931471803691238,
    1.9082149292705877e-10,
)  # the upper one has 32 bits, so small multiples are exact
ROUNDER = 1.5 * 2.0**52  # added and taken off again, rounds to the nearest integer and leaves it in the lowest bits
HALF_SQRT_BITS = np.int64(0x3FE6A09E667F3BCD)  # the code of sqrt(1/2): mantissas are taken from [sqrt(1/2), sqrt(2))
QUARTER_TURN = math.pi / 2
L3, L5, L7, L9, L11, L13, L15, L17, L19, L21 = (1 / n for n in range(3, 22, 2))
S3, S5, S7, S9, S11, S13, S15 = ((-1) ** (n // 2) / math.factorial(n) for n in range(3, 16, 2))
C2, C4, C6, C8, C10, C12, C14, C16 = ((-1) ** (n // 2) / math.factorial(n) for n in range(2, 17, 2))


@jit(inline="always")
def _pair(a: Any, width: Any, turns: Any) -> Any:
    """sqrt(-2 ln(a 2^-width)) times cosine and sine of `turns` quarter turns; a is a whole number of at least 1."""
    bits = np.float64(a).view(np.int64)
    exponent = (bits - HALF_SQRT_BITS) >> 52
    f = np.int64(bits - (exponent << 52)).view(np.float64) - 1.0
    s = f / (2.0 + f)
    z = s * s
    series = L3 + z * (L5 + z * (L7 + z * (L9 + z * (L11 + z * (L13 + z * (L15 + z * (L17 + z * (L19 + z * L21))))))))
    k = np.float64(exponent - width)
    radius = math.sqrt(-2.0 * (k * LN2_HIGH + (2.0 * s + (2.0 * s * (z * series) + k * LN2_LOW))))

    shifted = turns + ROUNDER
    quadrant = np.float64(shifted).view(np.int64)
    r = (turns - (shifted - ROUNDER)) * QUARTER_TURN
    q = r * r
    sine = r + r * (q * (S3 + q * (S5 + q * (S7 + q * (S9 + q * (S11 + q * (S13 + q * S15)))))))
    cosine = 1.0 + q * (C2 + q * (C4 + q * (C6 + q * (C8 + q * (C10 + q * (C12 + q * (C14 + q * C16)))))))
    swap = (quadrant & 1) != 0
    x = radius * (sine if swap else cosine)
    y = radius * (cosine if swap else sine)
    return (-x if ((quadrant + 1) & 2) != 0 else x), (-y if (quadrant & 2) != 0 else y)


@jit(parallel=True)
def _normal(out: Array, low: Any, high: Any, key: Any) -> None:
    blocks = out.size // 4
    for chunk in prange((blocks + CHUNK - 1) // CHUNK):
        for j in range(chunk * CHUNK, min(blocks, (chunk + 1) * CHUNK)):
            w0, w1, w2, w3 = _block(low, high, key, j)
            out[4 * j], out[4 * j + 1] = _pair(np.int64(w0) + 1.0, 32, np.int64(w1) * 2.0**-30)
            out[4 * j + 2], out[4 * j + 3] = _pair(np.int64(w2) + 1.0, 32, np.int64(w3) * 2.0**-30)


@jit(parallel=True)
def _normal53(out: Array, low: Any, high: Any, key: Any) -> None:
    blocks = out.size // 2
    for chunk in prange((blocks + CHUNK - 1) // CHUNK):
        for j in range(chunk * CHUNK, min(blocks, (chunk + 1) * CHUNK)):
            w0, w1, w2, w3 = _block(low, high, key, j)
            out[2 * j], out[2 * j + 1] = _pair(_integer53(w0, w1) + 1.0, 53, _integer53(w2, w3) * 2.0**-51)


@jit(inline="always")
def _place(x: Any, span: Any) -> Any:
    """Upper and lower half of the 128-bit product x span."""
    cross = (x & MASK) * (span >> HALF) + (((x & MASK) * (span & MASK)) >> HALF)
    middle = (x >> HALF) * (span & MASK) + (cross & MASK)
    return (x >> HALF) * (span >> HALF) + (cross >> HALF) + (middle >> HALF), x * span


@jit()
def _permutation(out: Array, low: Any, high: Any, key: Any) -> None:
    for i in range(out.size):
        if i % 2 == 0:
            w0, w1, w2, w3 = _block(low, high, key, i // 2)
        else:
            w0, w1 = w2, w3
        span = np.uint64(i) + ONE
        place, rest = _place(w0 | (w1 << HALF), span)
        attempt = high
        while rest < span and rest < (ZERO - span) % span:
            attempt += RETRY
            b0, b1, b2, b3 = _block(low, attempt, key, i // 2)
            place, rest = _place((b0 | (b1 << HALF)) if i % 2 == 0 else (b2 | (b3 << HALF)), span)
        out[i] = out[place]
        out[place] = i


@jit(parallel=True)
def _dropout(out: Array, x: Array, low: Any, high: Any, key: Any, limit: Any, scale: Any) -> None:
    blocks = (x.size + 3) // 4
    whole = x.size // 4
    for chunk in prange((blocks + CHUNK - 1) // CHUNK):
        for j in range(chunk * CHUNK, min(whole, (chunk + 1) * CHUNK)):
            w0, w1, w2, w3 = _block(low, high, key, j)
            out[4 * j] = x[4 * j] * scale if w0 >= limit else 0
            out[4 * j + 1] = x[4 * j + 1] * scale if w1 >= limit else 0
            out[4 * j + 2] = x[4 * j + 2] * scale if w2 >= limit else 0
            out[4 * j + 3] = x[4 * j + 3] * scale if w3 >= limit else 0
        if chunk * CHUNK <= whole < min(blocks, (chunk + 1) * CHUNK):
            last = _block(low, high, key, whole)
            for i in range(x.size - 4 * whole):
                out[4 * whole + i] = x[4 * whole + i] * scale if last[i] >= limit else 0


def _stream(key: int, counter: int) -> tuple[np.uint64, np.uint64, np.uint64]:
    return np.uint64(counter & LOW64), np.uint64(counter >> 64), np.uint64(key)


def _whole_blocks(size: int, words: int, dtype: Any) -> Array:
    """Room for `size` values and for what remains of the last block."""
    return np.empty(-(-size * words // 4) * 4 // words, dtype)


@kernel(spec.random_bits, "cpu/numba-blocks", rank=20, formats=[])
def random_bits(*, key: int, counter: int, size: int) -> Array:
    out = _whole_blocks(size, 1, np.uint32)
    _bits(out, *_stream(key, counter))
    return out[:size]


@kernel(spec.random_uniform, "cpu/numba-blocks", rank=20, formats=[])
def random_uniform(*, key: int, counter: int, size: int, dtype: Float) -> Array:
    if dtype is float64:
        out = _whole_blocks(size, 2, np.float64)
        _uniform53(out, *_stream(key, counter))
        return out[:size]
    out = _whole_blocks(size, 1, np.float32)
    bits = uniform_bits(dtype)
    _uniform(out, *_stream(key, counter), np.uint64(32 - bits), 2.0**-bits)
    return convert(out[:size], float32, dtype) if dtype.bits < 32 else out[:size]


@kernel(spec.random_normal, "cpu/numba-blocks", rank=20, formats=[])
def random_normal(*, key: int, counter: int, size: int, dtype: Float) -> Array:
    words = words_per_value(dtype)
    out = _whole_blocks(size, words, np.float64 if dtype is float64 else np.float32)
    (_normal53 if words == 2 else _normal)(out, *_stream(key, counter))
    return convert(out[:size], float32, dtype) if dtype.bits < 32 else out[:size]


@kernel(spec.random_permutation, "cpu/numba-blocks", rank=20, formats=[])
def random_permutation(*, key: int, counter: int, size: int) -> Array:
    out = np.empty(size, np.int64)
    _permutation(out, *_stream(key, counter))
    return out


@kernel(spec.dropout, "cpu/numba-blocks", rank=20, formats=[float32, float64], contiguous=True)
def dropout(x: Array, *, p: float, key: int, counter: int) -> Array:
    out = np.empty(x.shape, x.dtype)
    scale = x.dtype.type(spec.scale(p))
    _dropout(out.reshape(-1), x.reshape(-1), *_stream(key, counter), np.uint64(threshold(p)), scale)
    return out
