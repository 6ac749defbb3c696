"""Philox blocks side by side in vectors of 64 bits, a thousand at a time, whose words become values while they lie in the cache:
any thread can start anywhere.

LLVM makes vectors of loops that store one word of each block, not of those that store a whole block: words are put in their
order afterwards. The logarithm, sine and cosine of the normal distribution are written out as series, since Numba's own are
scalar calls; the values are those of the C++ rung bit for bit. Next limit: the 32 x 32 bit products, of which a vector unit
does half as many a cycle as it has lanes.
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

BLOCKS = 1024  # at a time
WORDS = 4 * BLOCKS
MASK, HALF, FIVE, SIX = (np.uint64(v) for v in (0xFFFFFFFF, 32, 5, 6))
M0, M1 = (np.uint64(m) for m in MULTIPLIERS)
W0, W1 = (np.uint64(w) for w in WEYL)
ONE, ZERO = np.uint64(1), np.uint64(0)
RETRY = np.uint64(1 << 32)  # philox.RETRY, in the upper half of the counter


@jit(inline="always")
def block(low: Any, high: Any, key: Any, j: Any) -> Any:
    """The four words of block j of a stream, see philox.py."""
    index = low + np.uint64(j)
    upper = high + (ONE if index < low else ZERO)
    c0, c1, c2, c3 = index & MASK, index >> HALF, upper & MASK, upper >> HALF
    k0, k1 = key & MASK, key >> HALF
    for _ in range(10):
        p0, p1 = M0 * c0, M1 * c2
        c0, c1, c2, c3 = (p1 >> HALF) ^ c1 ^ k0, p1 & MASK, (p0 >> HALF) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return c0, c1, c2, c3


@jit()
def draw_lanes(lanes: Array, low: Any, high: Any, key: Any, first: Any) -> None:
    """Words of blocks from `first` on: a row of first words, of second ones, and so on."""
    for j in range(lanes.shape[1]):
        w0, w1, w2, w3 = block(low, high, key, first + j)
        lanes[0, j], lanes[1, j], lanes[2, j], lanes[3, j] = w0, w1, w2, w3


@jit()
def _draw(words: Array, low: Any, high: Any, key: Any, first: Any) -> None:
    """The same, a row for each block."""
    lanes = np.empty((4, len(words)), np.uint32)
    draw_lanes(lanes, low, high, key, first)
    for j in range(len(words)):
        words[j, 0], words[j, 1], words[j, 2], words[j, 3] = lanes[0, j], lanes[1, j], lanes[2, j], lanes[3, j]


@jit(parallel=True)
def _bits(out: Array, low: Any, high: Any, key: Any) -> None:
    for task in prange((len(out) + BLOCKS - 1) // BLOCKS):
        _draw(out[task * BLOCKS : (task + 1) * BLOCKS], low, high, key, task * BLOCKS)


@jit(parallel=True)
def _uniform(out: Array, low: Any, high: Any, key: Any, shift: Any, scale: float) -> None:
    for task in prange((len(out) + WORDS - 1) // WORDS):
        words, part = np.empty((BLOCKS, 4), np.uint32), out[task * WORDS : (task + 1) * WORDS]
        _draw(words, low, high, key, task * BLOCKS)
        drawn = words.reshape(-1)
        for i in range(len(part)):
            part[i] = np.int64(drawn[i] >> shift) * scale


@jit(inline="always")
def _integer53(a: Any, b: Any) -> Any:
    return np.int64(a >> FIVE) * 67108864.0 + np.int64(b >> SIX)


@jit(parallel=True)
def _uniform53(out: Array, low: Any, high: Any, key: Any) -> None:
    for task in prange((2 * len(out) + WORDS - 1) // WORDS):
        words, part = np.empty((BLOCKS, 4), np.uint32), out[task * (WORDS // 2) : (task + 1) * (WORDS // 2)]
        _draw(words, low, high, key, task * BLOCKS)
        drawn = words.reshape(-1, 2)
        for i in range(len(part)):
            part[i] = _integer53(drawn[i, 0], drawn[i, 1]) * 2.0**-53


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
    """out: a row of four values for each block."""
    for task in prange((len(out) + BLOCKS - 1) // BLOCKS):
        lanes, values = np.empty((4, BLOCKS), np.uint32), np.empty((4, BLOCKS), out.dtype)
        part = out[task * BLOCKS : (task + 1) * BLOCKS]
        draw_lanes(lanes, low, high, key, task * BLOCKS)
        for k in range(0, 4, 2):
            for j in range(BLOCKS):
                turns = np.float64(lanes[k + 1, j]) * 2.0**-30
                values[k, j], values[k + 1, j] = _pair(np.float64(lanes[k, j]) + 1.0, 32, turns)
        for j in range(len(part)):
            part[j, 0], part[j, 1], part[j, 2], part[j, 3] = values[0, j], values[1, j], values[2, j], values[3, j]


@jit(parallel=True)
def _normal53(out: Array, low: Any, high: Any, key: Any) -> None:
    """out: a row of two values for each block."""
    for task in prange((len(out) + BLOCKS - 1) // BLOCKS):
        lanes, values = np.empty((4, BLOCKS), np.uint32), np.empty((2, BLOCKS), out.dtype)
        part = out[task * BLOCKS : (task + 1) * BLOCKS]
        draw_lanes(lanes, low, high, key, task * BLOCKS)
        for j in range(BLOCKS):
            turns = _integer53(lanes[2, j], lanes[3, j]) * 2.0**-51
            values[0, j], values[1, j] = _pair(_integer53(lanes[0, j], lanes[1, j]) + 1.0, 53, turns)
        for j in range(len(part)):
            part[j, 0], part[j, 1] = values[0, j], values[1, j]


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
            w0, w1, w2, w3 = block(low, high, key, i // 2)
        else:
            w0, w1 = w2, w3
        span = np.uint64(i) + ONE
        place, rest = _place(w0 | (w1 << HALF), span)
        attempt = high
        while rest < span and rest < (ZERO - span) % span:
            attempt += RETRY
            b0, b1, b2, b3 = block(low, attempt, key, i // 2)
            place, rest = _place((b0 | (b1 << HALF)) if i % 2 == 0 else (b2 | (b3 << HALF)), span)
        out[i] = out[place]
        out[place] = i


@jit(parallel=True)
def _dropout(x: Array, out: Array, low: Any, high: Any, key: Any, limit: Any, scale: Any) -> None:
    zero = x.dtype.type(0)
    for task in prange((len(x) + WORDS - 1) // WORDS):
        words, part = np.empty((BLOCKS, 4), np.uint32), out[task * WORDS : (task + 1) * WORDS]
        given = x[task * WORDS : (task + 1) * WORDS]
        _draw(words, low, high, key, task * BLOCKS)
        drawn = words.reshape(-1)
        for i in range(len(part)):
            part[i] = given[i] * scale if drawn[i] >= limit else zero


def _stream(key: int, counter: int) -> tuple[np.uint64, np.uint64, np.uint64]:
    return np.uint64(counter & LOW64), np.uint64(counter >> 64), np.uint64(key)


def _narrowed(values: Array, dtype: Float) -> Array:
    return convert(values, float32, dtype) if dtype.bits < 32 else values


@kernel(spec.random_bits, "cpu/numba-blocks", rank=20, formats=[])
def random_bits(*, key: int, counter: int, size: int) -> Array:
    out = np.empty((-(-size // 4), 4), np.uint32)
    _bits(out, *_stream(key, counter))
    return out.reshape(-1)[:size]


@kernel(spec.random_uniform, "cpu/numba-blocks", rank=20, formats=[])
def random_uniform(*, key: int, counter: int, size: int, dtype: Float) -> Array:
    if dtype is float64:
        out = np.empty(size)
        _uniform53(out, *_stream(key, counter))
        return out
    out, bits = np.empty(size, np.float32), uniform_bits(dtype)
    _uniform(out, *_stream(key, counter), np.uint32(32 - bits), 2.0**-bits)
    return _narrowed(out, dtype)


@kernel(spec.random_normal, "cpu/numba-blocks", rank=20, formats=[])
def random_normal(*, key: int, counter: int, size: int, dtype: Float) -> Array:
    in_block = 4 // words_per_value(dtype)
    out = np.empty((-(-size // in_block), in_block), np.float64 if dtype is float64 else np.float32)
    (_normal53 if in_block == 2 else _normal)(out, *_stream(key, counter))
    return _narrowed(out.reshape(-1)[:size], dtype)


@kernel(spec.random_permutation, "cpu/numba-blocks", rank=20, formats=[])
def random_permutation(*, key: int, counter: int, size: int) -> Array:
    out = np.empty(size, np.int64)
    _permutation(out, *_stream(key, counter))
    return out


@kernel(spec.dropout, "cpu/numba-blocks", rank=20, formats=[float32, float64], contiguous=True)
def dropout(x: Array, *, p: float, key: int, counter: int) -> Array:
    out = np.empty(x.shape, x.dtype)
    scale = x.dtype.type(spec.scale(p))
    _dropout(x.reshape(-1), out.reshape(-1), *_stream(key, counter), np.uint64(threshold(p)), scale)
    return out
