"""Philox4x32-10 in NumPy: ten rounds of two 32 x 32 -> 64 bit products turn a 128-bit counter into 128 random bits.

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011; the constants and the order
of words are those of the authors' Random123 library, whose known-answer vectors the tests hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array, Float

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # golden ratio and sqrt(3) - 1: what is added to the key words after every round
ROUNDS = 10
WORDS_PER_BLOCK = 4
LOW32 = 0xFFFFFFFF
LOW64 = 0xFFFFFFFFFFFFFFFF


def words(key: int, counter: int, size: int) -> Array:
    """The first `size` 32-bit words of the stream that starts at block `counter`, as uint32[size].

    Word i is word i % 4 of block counter + i // 4. The key's low half is Philox's first key word, the counter's
    lowest 32 bits its first counter word; the counter wraps at 2^128.
    """
    count = -(-size // WORDS_PER_BLOCK)
    low = np.arange(count, dtype=np.uint64) + np.uint64(counter & LOW64)
    high = np.uint64(counter >> 64) + (low < np.uint64(counter & LOW64)).astype(np.uint64)
    mask, half = np.uint64(LOW32), np.uint64(32)
    c0, c1, c2, c3 = low & mask, low >> half, high & mask, high >> half
    m0, m1 = (np.uint64(m) for m in MULTIPLIERS)
    for step in range(ROUNDS):
        k0, k1 = (np.uint64((key >> (32 * i)) + step * WEYL[i] & LOW32) for i in (0, 1))
        p0, p1 = m0 * c0, m1 * c2
        c0, c1, c2, c3 = (p1 >> half) ^ c1 ^ k0, p1 & mask, (p0 >> half) ^ c3 ^ k1, p0 & mask
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32).reshape(-1)[:size]


def packed(key: int, counter: int) -> Array:
    """Key and counter as int64[6] that kernels of a GPU read: 32 bits each, between an upper bit and a lowest one, so that no
    value of them has a kernel compiled for it."""
    parts = (key, key >> 32, counter, counter >> 32, counter >> 64, counter >> 96)
    return np.array([(part & LOW32) << 1 | 1 << 40 | 1 for part in parts], np.int64)


def uniform_bits(dtype: Float) -> int:
    """Random bits in one uniform value: as many as the format has below 1.0, which is then never reached."""
    return dtype.mantissa_bits + min(1, dtype.bias - 1)


def words_per_value(dtype: Float) -> int:
    """Words of the stream behind one value: two for float64, else one."""
    return 2 if uniform_bits(dtype) > 32 else 1


def integers53(pairs: Array) -> Array:
    """Pairs of words [n, 2] to 53-bit integers as float64[n]: the upper 27 of one, then the upper 26 of the other."""
    return (pairs[:, 0] >> np.uint32(5)) * 2.0**26 + (pairs[:, 1] >> np.uint32(6))


def uniform(*, key: int, counter: int, size: int, dtype: Float) -> Array:
    """Multiples of 2^-b in [0, 1), b of `uniform_bits`, exact in float64."""
    if words_per_value(dtype) == 2:
        return integers53(words(key, counter, 2 * size).reshape(-1, 2)) * 2.0**-53
    bits = uniform_bits(dtype)
    return np.asarray((words(key, counter, size) >> np.uint32(32 - bits)) * 2.0**-bits)


def normal(*, key: int, counter: int, size: int, dtype: Float) -> Array:
    """Box and Muller: values 2j and 2j + 1 are r cos(t) and r sin(t) with r = sqrt(-2 ln u), t = 2 pi v.

    u in (0, 1] and v in [0, 1) are the next two integers of the stream plus one, and as they are, over their range:
    32-bit words for formats of up to 32 bits (|value| <= 6.67), two words' 53 bits for float64 (|value| <= 8.58).
    """
    pairs = -(-size // 2)
    if words_per_value(dtype) == 2:
        drawn = integers53(words(key, counter, 4 * pairs).reshape(-1, 2)).reshape(-1, 2)
        scale = 2.0**-53
    else:
        drawn = words(key, counter, 2 * pairs).reshape(-1, 2).astype(np.float64)
        scale = 2.0**-32
    radius = np.sqrt(-2 * np.log((drawn[:, 0] + 1) * scale))
    turns = 4 * (drawn[:, 1] * scale)
    quarter = np.rint(turns)
    angle = np.pi / 2 * (turns - quarter)  # the nearest axis is taken off exactly: values near zero keep their digits
    sine, cosine, axis = np.sin(angle), np.cos(angle), quarter.astype(np.int64) % 4
    x = np.choose(axis, [cosine, -sine, -cosine, sine])
    y = np.choose(axis, [sine, cosine, -sine, -cosine])
    return np.asarray(np.stack([radius * x, radius * y], axis=1).reshape(-1)[:size])


RETRY = 1 << 96  # blocks between a draw and its next attempt: no stream is that long


def permutation(*, key: int, counter: int, size: int) -> Array:
    """Fisher and Yates, inside out: value i goes to a random place j <= i, and what was there to place i.

    j = floor(x s / 2^64) with s = i + 1 and x the two words 2i and 2i + 1 (low, high), unless x s mod 2^64 is below
    2^64 mod s: those x would favour some j (Lemire, "Fast random integer generation in an interval", 2019). Then x is
    drawn again, from the same place of the stream that starts 2^96 blocks on.
    """
    out = np.zeros(size, np.int64)
    drawn = words(key, counter, 2 * size).reshape(-1, 2)
    for i, (low, high) in enumerate(drawn.tolist()):
        span, product, attempt = i + 1, (i + 1) * (low | high << 32), 0
        while product % 2**64 < 2**64 % span:
            attempt += 1
            block = counter + attempt * RETRY + i // 2
            again = words(key, block % 2**128, WORDS_PER_BLOCK).reshape(-1, 2)[i % 2].tolist()
            product = span * (again[0] | again[1] << 32)
        j = product >> 64
        out[i] = out[j]
        out[j] = i
    return out


def threshold(p: float) -> int:
    """Words below this are the share p of all: p in units of 2^-32, rounded to nearest."""
    return round(p * 2**32)


def kept(shape: tuple[int, ...], p: float, key: int, counter: int) -> Any:
    """Which elements dropout keeps: element i where word i of the stream is not among the lowest share p."""
    size = int(np.prod(shape, dtype=np.int64))
    return (words(key, counter, size).astype(np.uint64) >= np.uint64(threshold(p))).reshape(shape)
