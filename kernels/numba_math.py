"""Elementary functions for Numba: csrc/cpu/isa/vector_math.h in straight-line Python, which LLVM turns into vectors.

Numba itself would call the C library for each value. Each float32 result is within 2 ULP, with infinities, NaN and signed
zeros as C has them. Additions may not be reordered here (adding and taking off ROUND rounds), but products may be fused
into them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.kernels.elementwise.coefficients import POLYNOMIALS
from ulpgrad.kernels.numba_jit import PerFormat, jit

T: Any = PerFormat(np.float32, np.float64)  # the type of values
BITS: Any = PerFormat(np.int32, np.int64)  # whole numbers of its width


def _each(float32: float, float64: float) -> Any:
    return PerFormat(np.float32(float32), np.float64(float64))


def _whole(float32: int, float64: int) -> Any:
    return PerFormat(np.int32(float32), np.int64(float64))


def _terms(name: str) -> Any:
    """The terms of a polynomial, lower half, upper half and the highest: LLVM unrolls loops over short tuples only."""

    def parts(kind: str, t: type) -> tuple[Any, ...]:
        *terms, highest = map(t, POLYNOMIALS[f"{name}_{kind}"])
        half = len(terms) // 2
        return tuple(terms[:half]), tuple(terms[half:]), highest

    return PerFormat(parts("F32", np.float32), parts("F64", np.float64))


ZERO, HALF, ONE, TWO, INFINITY, NAN = (_each(v, v) for v in (0, 0.5, 1, 2, np.inf, np.nan))
ROUND = _each(1.5 * 2.0**23, 1.5 * 2.0**52)  # adding it rounds to whole numbers
MANTISSA, BIAS = _whole(23, 52), _each(127, 1023)
LIFT, LOWER = _each(60, 512), _each(2.0**-60, 2.0**-512)  # 2^(n + LIFT) is normal for any n that matters
LOG2_E, ROOT_2, DENSITY = (_each(v, v) for v in (1.4426950408889634, 1.4142135623730951, 0.3989422804014327))
LN2_HIGH = _each(0.693359375, float.fromhex("0x1.62e42feep-1"))  # times a whole number it is exact
LN2_LOW = _each(-2.12194440e-4, float.fromhex("0x1.a39ef35793c76p-33"))
EXP_LOW, DECAY_LOW, EXP_HIGH, EXPM1_LOW = _each(-104, -746), _each(-110, -760), _each(89, 710), _each(-18, -40)
TANH_NEAR, TAIL_HIGH, TAIL_CENTER = _each(0.625, 0.625), _each(15, 40), _each(4, 5)
LOST_0, LOST_1 = _each(1.4118, 1.4118), _each(0.4706, 0.4706)
SIZE, SIGN = _whole(2**31 - 1, 2**63 - 1), _whole(-(2**31), -(2**63))  # the bits of a size, and of a sign
LAST_BIT = _whole(31, 63)
FRACTION, SQRT_HALF = _whole(2**23 - 1, 2**52 - 1), _whole(0x3F3504F3, 0x3FE6A09E667F3BCD)
EXPONENTS = _whole(127 << 23, 1023 << 52)
UNIT, UNIT_BITS = _each(2.0**23, 2.0**52), _whole(150 << 23, 1075 << 52)
SMALLEST_NORMAL, DIGITS, MOST_DIGITS = _each(2.0**-126, 2.0**-1022), _each(23, 52), _each(31, 60)
HALF_WIDTH, TOP = _whole(0x800, 0x4000000), _whole(-0x1000, -0x8000000)
EXP_TERMS, TANH_TERMS, TAIL_TERMS, ERF_TERMS, LOG_TERMS = map(_terms, ("EXP", "TANH", "TAIL", "ERF", "LOG"))
IS_SINGLE: Any = PerFormat(True, False)
EXACT = {"contract"}  # products may be fused into additions, and nothing else


@jit(fastmath=EXACT, forceinline=True)
def onto(terms, x, y):  # type: ignore[no-untyped-def]
    """terms[0] + terms[1] x + ... + y x^len(terms)"""
    for i in range(len(terms) - 1, -1, -1):
        y = y * x + terms[i]
    return y


@jit(fastmath=EXACT, forceinline=True)
def evaluate(terms, x):  # type: ignore[no-untyped-def]
    """A polynomial, its terms from the lowest power on."""
    lower, upper, highest = terms
    return onto(lower, x, onto(upper, x, highest))


@jit(forceinline=True)
def size_of(x):  # type: ignore[no-untyped-def]
    return BITS(T(x).view(BITS) & SIZE).view(T)


@jit(forceinline=True)
def copysign(x, y):  # type: ignore[no-untyped-def]
    return BITS(BITS(T(x).view(BITS) & SIZE) | BITS(T(y).view(BITS) & SIGN)).view(T)


@jit(forceinline=True)
def maximum(x, y):  # type: ignore[no-untyped-def]
    larger = x if x > y else y
    return x if x != x else larger


@jit(forceinline=True)
def minimum(x, y):  # type: ignore[no-untyped-def]
    smaller = x if x < y else y
    return x if x != x else smaller


@jit(forceinline=True)
def power_of_two(n):  # type: ignore[no-untyped-def]
    """2^n for a whole n that is the exponent of a normal number."""
    return BITS(T(n + (ROUND + BIAS)).view(BITS) << MANTISSA).view(T)


@jit(forceinline=True)
def nearest(x):  # type: ignore[no-untyped-def]
    return (x + ROUND) - ROUND


@jit(fastmath=EXACT, forceinline=True)
def scaled(y, n):  # type: ignore[no-untyped-def]
    """y 2^n, where y is about 1: in two steps, so that a subnormal result is rounded once."""
    half = nearest(n * HALF)
    return y * power_of_two(half) * power_of_two(n - half)


@jit(fastmath=EXACT, forceinline=True)
def scaled_down(y, n):  # type: ignore[no-untyped-def]
    """The same where the result is at most about 1."""
    return y * power_of_two(n + LIFT) * LOWER


@jit(fastmath=EXACT, forceinline=True)
def times_log2_e(x):  # type: ignore[no-untyped-def]
    """The n of x = n ln 2 + rest, |rest| <= ln 2 / 2."""
    return nearest(x * LOG2_E)


@jit(fastmath=EXACT, forceinline=True)
def rest(x, n):  # type: ignore[no-untyped-def]
    return (x - n * LN2_HIGH) - n * LN2_LOW


@jit(fastmath=EXACT, forceinline=True)
def expm1_rest(r):  # type: ignore[no-untyped-def]
    """exp(r) - 1"""
    return r + r * r * evaluate(EXP_TERMS, r)


@jit(fastmath=EXACT, forceinline=True)
def exp(x):  # type: ignore[no-untyped-def]
    x = EXP_LOW if x < EXP_LOW else x
    x = EXP_HIGH if x > EXP_HIGH else x
    n = times_log2_e(x)
    return scaled(ONE + expm1_rest(rest(x, n)), n)


@jit(fastmath=EXACT, forceinline=True)
def exp_decay(x, small):  # type: ignore[no-untyped-def]
    """exp(x + small) for DECAY_LOW <= x <= 0"""
    n = times_log2_e(x)
    return scaled_down(ONE + expm1_rest(rest(x, n) + small), n)


@jit(fastmath=EXACT, forceinline=True)
def exp_of_shifted(x):  # type: ignore[no-untyped-def]
    """exp(x) for x that is at most about 0, as after the maximum is taken off."""
    x = DECAY_LOW if x < DECAY_LOW else x
    n = times_log2_e(x)
    return scaled_down(ONE + expm1_rest(rest(x, n)), n)


@jit(fastmath=EXACT, forceinline=True)
def expm1(given):  # type: ignore[no-untyped-def]
    x = EXPM1_LOW if given < EXPM1_LOW else given
    x = EXP_HIGH if x > EXP_HIGH else x
    n = times_log2_e(x)
    p = expm1_rest(rest(x, n))
    half = nearest(n * HALF)
    other, scale = n - half, power_of_two(half)
    return copysign((scale * p + (scale - power_of_two(-other))) * power_of_two(other), given)


@jit(fastmath=EXACT, forceinline=True)
def tanh(x):  # type: ignore[no-untyped-def]
    """An odd polynomial near zero, where (1 - e) / (1 + e) would cancel."""
    size, z = size_of(x), x * x
    near = size + size * z * evaluate(TANH_TERMS, z)
    e = exp_of_shifted(size * -TWO)
    far = (ONE - e) / (ONE + e)
    return copysign(near if size < TANH_NEAR else far, x)


@jit(fastmath=EXACT, forceinline=True)
def sigmoid(x):  # type: ignore[no-untyped-def]
    """e / (1 + e) or 1 / (1 + e), with the exponential that does not overflow; what rounding 1 + e lost is taken out of e."""
    size = -size_of(x)
    size = DECAY_LOW if size < DECAY_LOW else size
    n = times_log2_e(size)
    p = expm1_rest(rest(size, n))
    q = ONE + p
    e = scaled_down(q, n)
    total = ONE + e
    lost = (e - (total - ONE)) * (LOST_0 - LOST_1 * total)
    upper = scaled_down(ONE + (p - lost * q), n)
    return (upper if x < ZERO else ONE) / total


@jit(forceinline=True)
def exponent_of(x):  # type: ignore[no-untyped-def]
    """n of x = 2^n (1 + f), 1 + f between sqrt(1/2) and sqrt(2); x positive, finite and normal."""
    whole = BITS(BITS(T(x).view(BITS) - SQRT_HALF) + EXPONENTS) >> MANTISSA  # never negative
    return BITS(BITS(whole) | UNIT_BITS).view(T) - (UNIT + BIAS)


@jit(forceinline=True)
def fraction_of(x):  # type: ignore[no-untyped-def]
    """f of the same."""
    return BITS(BITS(BITS(T(x).view(BITS) - SQRT_HALF) & FRACTION) + SQRT_HALF).view(T) - ONE


@jit(fastmath=EXACT, forceinline=True)
def join_log(f, n):  # type: ignore[no-untyped-def]
    """log(1 + f) + n ln 2"""
    if IS_SINGLE:
        return n * LN2_HIGH + (f + (f * f * (f * evaluate(LOG_TERMS, f) - HALF) + n * LN2_LOW))
    s = f / (TWO + f)
    z, half_square = s * s, HALF * f * f
    tail = s * (half_square + z * evaluate(LOG_TERMS, z)) + n * LN2_LOW
    return n * LN2_HIGH + (f - (half_square - tail))


@jit(forceinline=True)
def log_edges(y, x, zero):  # type: ignore[no-untyped-def]
    """What a logarithm gives where x is not positive and finite."""
    edge = -INFINITY if x == zero else NAN
    y = y if x > zero else edge
    return x if x == INFINITY else y


@jit(fastmath=EXACT, forceinline=True)
def log(x):  # type: ignore[no-untyped-def]
    normal = x * UNIT if x < SMALLEST_NORMAL else x
    n = exponent_of(normal)
    return log_edges(join_log(fraction_of(normal), n - DIGITS if x < SMALLEST_NORMAL else n), x, ZERO)


@jit(fastmath=EXACT, forceinline=True)
def log1p(x):  # type: ignore[no-untyped-def]
    """What rounding 1 + x lost is put back into f; it counts for nothing where 1 + x is large."""
    u = ONE + x
    lost = ONE - (u - x) if x > ONE else x - (u - ONE)
    n = exponent_of(u)
    scale = power_of_two(-MOST_DIGITS if n > MOST_DIGITS else -n)
    return log_edges(copysign(join_log(fraction_of(u) + lost * scale, n), x), x, -ONE)


@jit(fastmath=EXACT, forceinline=True)
def bell(z):  # type: ignore[no-untyped-def]
    """exp(-z^2 / 2) for 0 <= z <= TAIL_HIGH: the square in two parts, since its rounding would be magnified by itself."""
    top = BITS(BITS(T(z).view(BITS) + HALF_WIDTH) & TOP).view(T)  # its square is exact
    return exp_decay(-HALF * (top * top), -HALF * ((z - top) * (z + top)))


@jit(fastmath=EXACT, forceinline=True)
def upper_tail(z):  # type: ignore[no-untyped-def]
    """1 - normal_cdf(z) for z >= 0"""
    z = TAIL_HIGH if z > TAIL_HIGH else z
    inverse = ONE / (z + TAIL_CENTER)
    return bell(z) * (evaluate(TAIL_TERMS, (z - TAIL_CENTER) * inverse) * inverse)


@jit(fastmath=EXACT, forceinline=True)
def normal_cdf(x):  # type: ignore[no-untyped-def]
    tail = upper_tail(size_of(x))
    return tail if x < ZERO else ONE - tail


@jit(fastmath=EXACT, forceinline=True)
def normal_density(x):  # type: ignore[no-untyped-def]
    size = size_of(x)
    return DENSITY * bell(TAIL_HIGH if size > TAIL_HIGH else size)


@jit(fastmath=EXACT, forceinline=True)
def erf(x):  # type: ignore[no-untyped-def]
    size = size_of(x)
    near = x + x * evaluate(ERF_TERMS, ONE if size > ONE else size * size)
    far = copysign(ONE - TWO * upper_tail(size * ROOT_2), x)
    return far if size > ONE else near
