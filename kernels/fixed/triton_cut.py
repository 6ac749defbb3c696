"""A cut inside Triton kernels: fraction bits dropped under a rounding, then the limit to a word, as kernels/fixed/cut.py defines
it on NumPy's integers. In int64, which holds every value that a rung is given here."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from ulpgrad.kernels.triton_launch import tl, triton


@triton.jit
def goes_up(part, DROP: tl.constexpr, RANDOM_BITS: tl.constexpr, words):
    """Whether stochastic rounding goes up at a fraction part / 2^DROP, which is taken to RANDOM_BITS bits, ties to even."""
    whole = tl.full((), 1, tl.int64) << DROP
    scaled = part << RANDOM_BITS
    count = scaled >> DROP
    rest = 2 * (scaled - (count << DROP))
    count += ((rest > whole) | ((rest == whole) & ((count & 1) == 1))).to(tl.int64)
    drawn = (words.to(tl.uint32, bitcast=True) >> (32 - RANDOM_BITS)).to(tl.int64)
    return (count + drawn) >= (tl.full((), 1, tl.int64) << RANDOM_BITS)


@triton.jit
def rounded(v, DROP: tl.constexpr, ROUNDING: tl.constexpr, RANDOM_BITS: tl.constexpr = 0, words=None):
    """int64 values without DROP fraction bits (negative: with zeros below)."""
    if DROP <= 0:
        result = v << -DROP
    else:
        one = tl.full((), 1, tl.int64) << DROP
        half, floor = one >> 1, v >> DROP
        if ROUNDING == "nearest_even":
            result = (v + (half - 1) + (floor & 1)) >> DROP
        elif ROUNDING == "nearest_away":
            result = (v + half - (v < 0).to(tl.int64)) >> DROP
        elif ROUNDING == "toward_zero":
            result = tl.where(v < 0, (v + (one - 1)) >> DROP, floor)
        elif ROUNDING == "up":
            result = (v + (one - 1)) >> DROP
        elif ROUNDING == "down":
            result = floor
        elif ROUNDING == "to_odd":
            result = floor | ((v & (one - 1)) != 0).to(tl.int64)
        else:
            size = tl.abs(v)
            size = (size >> DROP) + goes_up(size & (one - 1), DROP, RANDOM_BITS, words).to(tl.int64)
            result = tl.where(v < 0, -size, size)
    return result


@triton.jit
def limited(v, low, high, WRAP: tl.constexpr):
    """Within a word from `low` to `high`, int64 both; where it wraps, a word has a power of two values."""
    if WRAP:
        result = ((v - low) & (high - low)) + low
    else:
        result = tl.minimum(tl.maximum(v, low), high)
    return result
