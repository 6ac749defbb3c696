"""Elementary functions for Triton kernels: vector_math.h in operations of `tl` alone, so that they run in Triton's interpreter,
where libdevice does not, and give the same values on every GPU.

All take blocks of float32 or float64 and give the same. `tl.exp`, `tl.log`, `tl.sqrt` and `/` are approximate in float32 on a GPU
(`tl.exp` by 2 ULP and one more for every unit of the argument; `/` and `tl.sqrt` by 1 or 2): here results are within 2 ULP
(those of `normal_cdf` and `erfc`, 7), `divide` and `square_root` rounded once, subnormals kept, infinities, NaN and signed
zeros as C has them. Additions may not be reordered (`nearest` adds and takes off), but products may be fused into them.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: RET505 (of two branches on a type, Triton compiles one: what follows an `if` it would compile for both)

from __future__ import annotations

from typing import Any

from ulpgrad.kernels.elementwise.coefficients import POLYNOMIALS
from ulpgrad.kernels.triton_launch import tl, triton


def terms(name: str) -> tuple[Any, Any]:
    """The terms of a polynomial in float32 and in float64, as kernels read them."""
    return tl.constexpr(POLYNOMIALS[f"{name}_F32"]), tl.constexpr(POLYNOMIALS[f"{name}_F64"])


INFINITY = tl.constexpr(float("inf"))
LN2_HIGH = tl.constexpr(float.fromhex("0x1.62e42feep-1"))  # times a whole number it is exact
LN2_LOW = tl.constexpr(float.fromhex("0x1.a39ef35793c76p-33"))
EXP_F32, EXP_F64 = terms("EXP")
TANH_F32, TANH_F64 = terms("TANH")
LOG_F32, LOG_F64 = terms("LOG")
TAIL_F32, TAIL_F64 = terms("TAIL")
ERF_F32, ERF_F64 = terms("ERF")


# --- bits, and what is exact


@triton.jit
def bits_of(x):
    if x.dtype == tl.float64:
        return x.to(tl.int64, bitcast=True)
    else:
        return x.to(tl.int32, bitcast=True)


@triton.jit
def from_bits(bits):
    if bits.dtype == tl.int64:
        return bits.to(tl.float64, bitcast=True)
    else:
        return bits.to(tl.float32, bitcast=True)


@triton.jit
def sign_bit(x):
    """The sign, alone in its place."""
    if x.dtype == tl.float64:
        return bits_of(x) & -0x8000000000000000
    else:
        return bits_of(x) & -0x80000000


@triton.jit
def copysign(x, y):
    return from_bits(bits_of(tl.abs(x)) | sign_bit(y))


@triton.jit
def signbit(x):
    return bits_of(x) < 0


@triton.jit
def isnan(x):
    return x != x


@triton.jit
def isinf(x):
    return tl.abs(x) == INFINITY


@triton.jit
def isfinite(x):
    return tl.abs(x) < INFINITY


@triton.jit
def maximum(x, y):
    """The larger, NaN if one is."""
    return tl.where(x != x, x, tl.where(x > y, x, y))


@triton.jit
def minimum(x, y):
    """The smaller, NaN if one is."""
    return tl.where(x != x, x, tl.where(x < y, x, y))


@triton.jit
def rint(x):
    """The nearest whole number, the even one of two."""
    size = tl.abs(x)
    if x.dtype == tl.float64:
        whole = tl.where(size < 4503599627370496.0, (size + 4503599627370496.0) - 4503599627370496.0, size)
    else:
        whole = tl.where(size < 8388608.0, (size + 8388608.0) - 8388608.0, size)
    return copysign(whole, x)


@triton.jit
def floor(x):
    """Not `tl.floor`, which takes a float32 that is subnormal for 0."""
    whole = rint(x)
    return tl.where(whole > x, whole - 1.0, whole)


@triton.jit
def ceil(x):
    whole = rint(x)
    return copysign(tl.where(whole < x, whole + 1.0, whole), x)


@triton.jit
def trunc(x):
    return copysign(floor(tl.abs(x)), x)


@triton.jit
def divide(x, y):
    """x / y, rounded once."""
    if y.dtype == tl.float64:
        return x / y
    else:
        return tl.math.div_rn(x, y)


@triton.jit
def square_root(x):
    """Rounded once."""
    if x.dtype == tl.float64:
        return tl.sqrt(x)
    else:
        return tl.math.sqrt_rn(x)


@triton.jit
def nearest(x):
    """The nearest whole number, for x below half of what still has fractions."""
    if x.dtype == tl.float64:
        return (x + 6755399441055744.0) - 6755399441055744.0
    else:
        return (x + 12582912.0) - 12582912.0


@triton.jit
def power_of_two(n):
    """2^n for a whole n that is the exponent of a normal number."""
    if n.dtype == tl.float64:
        return from_bits(bits_of(n + 6755399441056767.0) << 52)
    else:
        return from_bits(bits_of(n + 12583039.0) << 23)


@triton.jit
def scaled(y, n):
    """y 2^n, where y is about 1: in two steps, so that a subnormal result is rounded once."""
    half = nearest(n * 0.5)
    return y * power_of_two(half) * power_of_two(n - half)


@triton.jit
def scaled_down(y, n):
    """The same where the result is at most about 1."""
    if y.dtype == tl.float64:
        return y * power_of_two(n + 512.0) * 7.458340731200207e-155
    else:
        return y * power_of_two(n + 60.0) * 8.673617379884035e-19


@triton.jit
def evaluate(x, terms: tl.constexpr, count: tl.constexpr):
    """A polynomial of `count` terms, given from the lowest power on."""
    total = x * terms[count - 1] + terms[count - 2]
    for i in tl.static_range(count - 2):
        total = total * x + terms[count - 3 - i]
    return total


# --- exponentials


@triton.jit
def times_log2_e(x):
    """The n of x = n ln 2 + rest, |rest| <= ln 2 / 2."""
    return nearest(x * 1.4426950408889634)


@triton.jit
def rest(x, n):
    if x.dtype == tl.float64:
        return (x - n * LN2_HIGH) - n * LN2_LOW
    else:
        return (x - n * 0.693359375) - n * -2.12194440e-4


@triton.jit
def expm1_rest(r):
    """exp(r) - 1"""
    if r.dtype == tl.float64:
        return r + r * r * evaluate(r, EXP_F64, 11)
    else:
        return r + r * r * evaluate(r, EXP_F32, 5)


@triton.jit
def clamped(x, low64: tl.constexpr, high64: tl.constexpr, low32: tl.constexpr, high32: tl.constexpr):
    """x between two bounds, NaN if it is."""
    if x.dtype == tl.float64:
        return tl.where(x < low64, low64, tl.where(x > high64, high64, x))
    else:
        return tl.where(x < low32, low32, tl.where(x > high32, high32, x))


@triton.jit
def exp_times(x, power: tl.constexpr):
    """exp(x) 2^power for a small power: it overflows where the result does."""
    x = clamped(x, -746.0, 711.0, -104.0, 90.0)
    n = times_log2_e(x)
    return scaled(1.0 + expm1_rest(rest(x, n)), n + power)


@triton.jit
def exp(x):
    return exp_times(x, 0)


@triton.jit
def exp_decay(x, small):
    """exp(x + small) for x <= 0 that is at least -110 (-760 in float64)."""
    n = times_log2_e(x)
    return scaled_down(1.0 + expm1_rest(rest(x, n) + small), n)


@triton.jit
def exp_of_shifted(x):
    """exp(x) for x that is at most about 0, as after the maximum is taken off: fewer steps than `exp`."""
    x = clamped(x, -760.0, 760.0, -110.0, 110.0)
    n = times_log2_e(x)
    return scaled_down(1.0 + expm1_rest(rest(x, n)), n)


@triton.jit
def expm1(given):
    x = clamped(given, -40.0, 710.0, -18.0, 89.0)
    n = times_log2_e(x)
    p = expm1_rest(rest(x, n))
    half = nearest(n * 0.5)
    other, scale = n - half, power_of_two(half)
    return copysign((scale * p + (scale - power_of_two(-other))) * power_of_two(other), given)


@triton.jit
def tanh(x):
    """An odd polynomial near zero, where (1 - e) / (1 + e) would cancel."""
    size, z = tl.abs(x), x * x
    if x.dtype == tl.float64:
        near = size + size * z * evaluate(z, TANH_F64, 12)
    else:
        near = size + size * z * evaluate(z, TANH_F32, 5)
    e = exp_of_shifted(size * -2.0)
    return copysign(tl.where(size < 0.625, near, divide(1.0 - e, 1.0 + e)), x)


@triton.jit
def sigmoid(x):
    """e / (1 + e) or 1 / (1 + e), with the exponential that does not overflow; what rounding 1 + e lost is taken out of e."""
    size = clamped(-tl.abs(x), -760.0, 0.0, -110.0, 0.0)
    n = times_log2_e(size)
    p = expm1_rest(rest(size, n))
    q = 1.0 + p
    e = scaled_down(q, n)
    total = 1.0 + e
    lost = (e - (total - 1.0)) * (1.4118 - 0.4706 * total)
    return divide(tl.where(x < 0.0, scaled_down(1.0 + (p - lost * q), n), 1.0), total)


# --- logarithms


@triton.jit
def exponent_of(x):
    """n of x = 2^n (1 + f), 1 + f between sqrt(1/2) and sqrt(2); x positive, finite and normal."""
    if x.dtype == tl.float64:
        whole = ((bits_of(x) - 0x3FE6A09E667F3BCD) + (1023 << 52)) >> 52  # never negative
        return from_bits(whole | (1075 << 52)) - 4503599627371519.0
    else:
        whole = ((bits_of(x) - 0x3F3504F3) + (127 << 23)) >> 23
        return from_bits(whole | (150 << 23)) - 8388735.0


@triton.jit
def fraction_of(x):
    """f of the same."""
    if x.dtype == tl.float64:
        return from_bits(((bits_of(x) - 0x3FE6A09E667F3BCD) & ((1 << 52) - 1)) + 0x3FE6A09E667F3BCD) - 1.0
    else:
        return from_bits(((bits_of(x) - 0x3F3504F3) & ((1 << 23) - 1)) + 0x3F3504F3) - 1.0


@triton.jit
def normal_of(x):
    """x, or x 2^digits where it is subnormal."""
    if x.dtype == tl.float64:
        return tl.where(x < 2.2250738585072014e-308, x * 4503599627370496.0, x)
    else:
        return tl.where(x < 1.1754943508222875e-38, x * 8388608.0, x)


@triton.jit
def normal_exponent(x):
    """The n of x itself, subnormal or not."""
    n = exponent_of(normal_of(x))
    if x.dtype == tl.float64:
        return tl.where(x < 2.2250738585072014e-308, n - 52.0, n)
    else:
        return tl.where(x < 1.1754943508222875e-38, n - 23.0, n)


@triton.jit
def log_of_fraction(f, small):
    """log(1 + f) + small"""
    if f.dtype == tl.float64:
        s = f / (2.0 + f)
        z, half_square = s * s, 0.5 * f * f
        return f - (half_square - (s * (half_square + z * evaluate(z, LOG_F64, 8)) + small))
    else:
        return f + (f * f * (f * evaluate(f, LOG_F32, 9) - 0.5) + small)


@triton.jit
def join_log(f, n):
    """log(1 + f) + n ln 2"""
    if f.dtype == tl.float64:
        return n * LN2_HIGH + log_of_fraction(f, n * LN2_LOW)
    else:
        return n * 0.693359375 + log_of_fraction(f, n * -2.12194440e-4)


@triton.jit
def log_edges(y, x, zero: tl.constexpr):
    """What a logarithm gives where x is not positive and finite."""
    y = tl.where(x > zero, y, tl.where(x == zero, -INFINITY, float("nan")))
    return tl.where(x == INFINITY, x, y)


@triton.jit
def log(x):
    return log_edges(join_log(fraction_of(normal_of(x)), normal_exponent(x)), x, 0.0)


@triton.jit
def log2(x):
    f = fraction_of(normal_of(x))
    return log_edges(normal_exponent(x) + log_of_fraction(f, 0.0) * 1.4426950408889634, x, 0.0)


@triton.jit
def log10(x):
    f, n = fraction_of(normal_of(x)), normal_exponent(x)
    y = log_of_fraction(f, 0.0) * 0.4342944819032518
    if x.dtype == tl.float64:
        y = n * 0.30102999566361177 + (y + n * 3.694239077158931e-13)
    else:
        y = n * 0.301025390625 + (y + n * 4.605038981195214e-06)
    return log_edges(y, x, 0.0)


@triton.jit
def log1p(x):
    """What rounding 1 + x lost is put back into f; it counts for nothing where 1 + x is large."""
    u = 1.0 + x
    lost = tl.where(x > 1.0, 1.0 - (u - x), x - (u - 1.0))
    n = exponent_of(u)
    scale = power_of_two(clamped(-n, -60.0, 60.0, -31.0, 31.0))
    return log_edges(copysign(join_log(fraction_of(u) + lost * scale, n), x), x, -1.0)


# --- the normal distribution


@triton.jit
def exp_of_square(z, factor: tl.constexpr):
    """exp(factor z^2), factor a negative power of two: the square in two parts, or its rounding would be magnified by itself."""
    if z.dtype == tl.float64:
        top = from_bits((bits_of(z) + 0x4000000) & -0x8000000)  # its square is exact
    else:
        top = from_bits((bits_of(z) + 0x800) & -0x1000)
    return exp_decay(factor * (top * top), factor * ((z - top) * (z + top)))


@triton.jit
def tail_over_bell(z):
    """(1 - normal_cdf(z)) / exp(-z^2 / 2) for z >= 0 at most 15 (40 in float64)."""
    if z.dtype == tl.float64:
        inverse = 1.0 / (z + 5.0)
        return evaluate((z - 5.0) * inverse, TAIL_F64, 24) * inverse
    else:
        inverse = divide(1.0, z + 4.0)
        return evaluate((z - 4.0) * inverse, TAIL_F32, 10) * inverse


@triton.jit
def upper_tail(z):
    """1 - normal_cdf(z) for z >= 0"""
    z = clamped(z, 0.0, 40.0, 0.0, 15.0)
    return exp_of_square(z, -0.5) * tail_over_bell(z)


@triton.jit
def normal_cdf(x):
    tail = upper_tail(tl.abs(x))
    return tl.where(x < 0.0, tail, 1.0 - tail)


@triton.jit
def normal_density(x):
    return exp_of_square(clamped(tl.abs(x), 0.0, 40.0, 0.0, 15.0), -0.5) * 0.3989422804014327


@triton.jit
def erf(x):
    size = tl.abs(x)
    if x.dtype == tl.float64:
        near = x + x * evaluate(tl.where(size > 1.0, 1.0, size * size), ERF_F64, 13)
    else:
        near = x + x * evaluate(tl.where(size > 1.0, 1.0, size * size), ERF_F32, 7)
    return tl.where(size > 1.0, copysign(1.0 - 2.0 * upper_tail(size * 1.4142135623730951), x), near)


@triton.jit
def erfc(x):
    """1 - erf(x), which cancels nothing for large x."""
    size = clamped(tl.abs(x), 0.0, 28.0, 0.0, 10.6)
    tail = 2.0 * exp_of_square(size, -1.0) * tail_over_bell(size * 1.4142135623730951)
    return tl.where(x < 0.0, 2.0 - tail, tail)
