"""Philox4x32-10 inside Triton kernels: blocks of the stream, and words in the order in which it has them."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.kernels import capture, gpu
from ulpgrad.kernels.random.philox import packed
from ulpgrad.kernels.triton_launch import tl, triton


def stream(key: int, counter: int) -> tuple[Any, ...]:
    """Key and counter as arguments of a launch. Where a graph is captured, or is going to be, they lie in memory, so that a
    replay reads others."""
    there, captured = None, capture.current()
    if captured is not None:
        there = captured.draws.get((key, counter))
        captured.unread.discard((key, counter))
    elif gpu.state.rehearsed is not None and (key, counter) in gpu.state.rehearsed:
        there = gpu.xp().asarray(packed(key, counter))
    return tuple(packed(key, counter).tolist()) if there is None else tuple(there[i : i + 1] for i in range(6))


@triton.jit
def _word(argument):
    """What `stream` packed."""
    value = argument
    if argument.dtype.is_ptr():
        value = tl.load(argument)
    return (tl.cast(value, tl.int64) >> 1).to(tl.uint32)


@triton.jit
def block(j, k0, k1, c0, c1, c2, c3, above=None):
    """The four words of block counter + j, plus 2^96 times `above` if it is given; j is int64 and not negative, the rest but for
    `above` comes from `stream`."""
    low = (_word(c1).to(tl.uint64) << 32 | _word(c0).to(tl.uint64)) + j.to(tl.uint64)
    carry = (low < j.to(tl.uint64)).to(tl.uint64)
    high = (_word(c3).to(tl.uint64) << 32 | _word(c2).to(tl.uint64)) + carry
    if above is not None:
        high += above.to(tl.uint64) << 32
    w0, w1 = low.to(tl.uint32), (low >> 32).to(tl.uint32)
    w2, w3 = high.to(tl.uint32), (high >> 32).to(tl.uint32)
    key0, key1 = _word(k0), _word(k1)
    for _ in tl.static_range(10):
        p0 = w0.to(tl.uint64) * 0xD2511F53
        p1 = w2.to(tl.uint64) * 0xCD9E8D57
        w0, w1, w2, w3 = (
            (p1 >> 32).to(tl.uint32) ^ w1 ^ key0,
            p1.to(tl.uint32),
            (p0 >> 32).to(tl.uint32) ^ w3 ^ key1,
            p0.to(tl.uint32),
        )
        key0 += 0x9E3779B9
        key1 += 0xBB67AE85
    return w0, w1, w2, w3


@triton.jit
def in_order(w0, w1, w2, w3):
    """Four rows of n values as 4 n: those of one block side by side."""
    return tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))


@triton.jit
def words(first, k0, k1, c0, c1, c2, c3, COUNT: tl.constexpr):
    """COUNT words of the stream from word `first`, a multiple of four, on."""
    j = tl.cast(first, tl.int64) // 4 + tl.arange(0, COUNT // 4)
    w0, w1, w2, w3 = block(j, k0, k1, c0, c1, c2, c3)
    return in_order(w0, w1, w2, w3)


@triton.jit
def word_at(place, k0, k1, c0, c1, c2, c3):
    """The words of the stream at these places, int64: each by a block of its own."""
    w0, w1, w2, w3 = block(place >> 2, k0, k1, c0, c1, c2, c3)
    return tl.where((place & 2) == 0, tl.where((place & 1) == 0, w0, w1), tl.where((place & 1) == 0, w2, w3))
