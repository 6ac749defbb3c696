"""Functions for Triton kernels that take exact products: quotients and remainders with Python's signs, powers, lengths; and
integers with NumPy's rules. Written in operations of `tl` alone, like triton_math.py.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: RET505 (of two branches on a type, Triton compiles one: what follows an `if` it would compile for both)

from __future__ import annotations

from ulpgrad.kernels.elementwise.coefficients import POLYNOMIALS
from ulpgrad.kernels.triton_launch import tl, triton
from ulpgrad.kernels.triton_math import (
    INFINITY,
    LN2_HIGH,
    LN2_LOW,
    bits_of,
    clamped,
    copysign,
    divide,
    evaluate,
    exp,
    expm1_rest,
    floor,
    fraction_of,
    from_bits,
    isfinite,
    isinf,
    isnan,
    log,
    log_edges,
    normal_exponent,
    normal_of,
    rest,
    rint,
    scaled,
    signbit,
    times_log2_e,
    trunc,
)

LOG_HIGHER = tl.constexpr(POLYNOMIALS["LOG_F64"][1:])


@triton.jit
def hypot(x, y):
    if x.dtype == tl.float64:
        a, b = tl.abs(x), tl.abs(y)
        longer, shorter = tl.where(a > b, a, b), tl.where(a > b, b, a)
        ratio = shorter / tl.where(longer == 0.0, 1.0, longer)
        length = tl.where(isnan(x) | isnan(y), x + y, longer * tl.sqrt(1.0 + ratio * ratio))
    else:
        a, b = x.to(tl.float64), y.to(tl.float64)
        length = tl.sqrt(a * a + b * b).to(tl.float32)
    return tl.where(isinf(x) | isinf(y), INFINITY, length)


# --- products of float64 in two parts


@triton.jit
def halved(x):
    """The upper 26 digits of x."""
    return from_bits(bits_of(x) & -0x8000000)


@triton.jit
def product_of(x, y):
    """(p, rest): x y as a sum. By products of halves, since the interpreter has no fused one; and p is made even, which keeps the
    compiler from fusing its product into sums, where its rounding would count twice."""
    p = from_bits(bits_of(x * y) & -2)
    x_high, y_high = halved(x), halved(y)
    x_low, y_low = x - x_high, y - y_high
    return p, ((x_high * y_high - p) + x_high * y_low + x_low * y_high) + x_low * y_low


# --- quotients


@triton.jit
def mantissa_of(x):
    """The size of a finite x as a whole number, times a power of two: `exponent_field`, which is at least 1."""
    if x.dtype == tl.float64:
        bits = bits_of(tl.abs(x))
        return tl.where(bits < (1 << 52), bits, (bits & ((1 << 52) - 1)) | (1 << 52)).to(tl.uint64)
    else:
        bits = bits_of(tl.abs(x))
        return tl.where(bits < (1 << 23), bits, (bits & ((1 << 23) - 1)) | (1 << 23)).to(tl.uint64)


@triton.jit
def exponent_field(x):
    if x.dtype == tl.float64:
        field = (bits_of(tl.abs(x)) >> 52).to(tl.int32)
    else:
        field = bits_of(tl.abs(x)) >> 23
    return tl.where(field < 1, 1, field)


@triton.jit
def far_remainder(x, y):
    """C's fmod in whole numbers: the mantissa of x times a power of two, brought down modulo that of y a few digits at a time."""
    STEP: tl.constexpr = 11 if x.dtype == tl.float64 else 40
    divisor = mantissa_of(y)
    divisor = tl.where(divisor == 0, 1, divisor.to(tl.int64)).to(tl.uint64)
    left = exponent_field(x) - exponent_field(y)
    is_less = left < 0
    rest = mantissa_of(x) % divisor
    left = tl.where(is_less | (y == 0.0) | (isfinite(x) == 0) | (isfinite(y) == 0), 0, left)
    while tl.max(left) > 0:
        now = tl.where(left < STEP, left, STEP)
        rest = (rest << now.to(tl.uint64)) % divisor
        left = left - now
    if x.dtype == tl.float64:
        value = scaled_whole(rest.to(tl.float64), exponent_field(y) - 1075)
    else:
        value = scaled_whole(rest.to(tl.float64), exponent_field(y) - 150).to(tl.float32)
    return copysign(tl.where(is_less, tl.abs(x), value), x)


@triton.jit
def scaled_whole(x, n):
    """x 2^n in float64, exact where the result is one; n down to -1074."""
    half = n >> 1
    return x * from_bits((half + 1023).to(tl.int64) << 52) * from_bits((n - half + 1023).to(tl.int64) << 52)


@triton.jit
def fmod(x, y):
    """C's: the remainder with the sign of x. In float32 by the rounded quotient, which may be off by one, its product exact in
    float64; where it has more digits than a float, and in float64, in whole numbers."""
    if x.dtype == tl.float64:
        r = far_remainder(x, y)
    else:
        ratio = divide(x, y)
        q = trunc(ratio)
        r = (x.to(tl.float64) - q.to(tl.float64) * y.to(tl.float64)).to(tl.float32)
        r, step = tl.where(q == 0.0, x, r), copysign(y, x)
        r = tl.where((r != 0.0) & (signbit(r) != signbit(x)), r + step, tl.where(tl.abs(r) >= tl.abs(y), r - step, r))
        is_far = isfinite(x) & isfinite(y) & (y != 0.0) & ((tl.abs(ratio) < 8388608.0) == 0)
        if tl.max(is_far.to(tl.int32)) > 0:
            r = tl.where(is_far, far_remainder(x, y), r)
    return tl.where(isfinite(x) & (y == y) & (y != 0.0), r, float("nan"))


@triton.jit
def remainder(x, y):
    r = fmod(x, y)
    r = tl.where((r != 0.0) & (signbit(r) != signbit(y)), r + y, r)
    return tl.where(r == 0.0, copysign(r, y), r)


@triton.jit
def floor_divide(x, y):
    """Of what is left of x without the remainder: the quotient is a whole number, but for its rounding."""
    r, ratio = fmod(x, y), divide(x, y)
    q = (x.to(tl.float64) - r.to(tl.float64)) / y.to(tl.float64)
    q = rint(tl.where((r != 0.0) & (signbit(r) != signbit(y)), q - 1.0, q)).to(x.dtype)
    q = tl.where(q == 0.0, copysign(q, ratio), q)
    return tl.where(y == 0.0, ratio, q)


# --- powers


@triton.jit
def power_of(a, y):
    """a^y for a >= 0 in float64: the logarithm in two parts, since the exponent magnifies its rounding."""
    n, f = normal_exponent(a), fraction_of(normal_of(a))
    divisor = 2.0 + f
    s = f / divisor
    product, lost = product_of(s, divisor)
    s_rest = (((f - product) - lost) - s * (f - (divisor - 2.0))) / divisor
    z, lost = product_of(s, s)
    z_rest = lost + 2.0 * s * s_rest
    higher = z * evaluate(z, LOG_HIGHER, 7)
    terms = 0.6666666666666666 + higher
    terms_rest = ((0.6666666666666666 - terms) + higher) + 3.700743415417188e-17
    cube, lost = product_of(s, z)
    cube_rest = lost + s * z_rest + s_rest * z
    tail, lost = product_of(cube, terms)
    tail_rest = lost + cube * terms_rest + cube_rest * terms
    near = 2.0 * s + tail
    near_rest = ((2.0 * s - near) + tail) + (2.0 * s_rest + tail_rest)
    whole = n * LN2_HIGH  # exact
    log_a = whole + near
    log_rest = ((whole - log_a) + near) + (near_rest + n * LN2_LOW)
    log_a = log_edges(log_a, a, 0.0)
    x, lost = product_of(y, log_a)
    small = lost + y * log_rest
    is_large = (tl.abs(x) < 750.0) == 0
    x, small = clamped(x, -746.0, 711.0, -746.0, 711.0), tl.where(is_large, 0.0, small)
    n = times_log2_e(x)
    return scaled(1.0 + expm1_rest(rest(x, n) + small), n)


@triton.jit
def power(x, y):
    size = tl.abs(x)
    if x.dtype == tl.float64:
        p = power_of(size, y)
    else:
        p = exp(y.to(tl.float64) * log(size.to(tl.float64))).to(tl.float32)
    half = y * 0.5
    is_whole = floor(y) == y
    is_odd = is_whole & (floor(half) != half)
    p = tl.where(signbit(x) & is_odd, -p, p)
    p = tl.where((x < 0.0) & (x > -INFINITY) & (is_whole == 0) & (y == y), float("nan"), p)
    return tl.where((y == 0.0) | (x == 1.0) | ((x == -1.0) & isinf(y)), 1.0, p)


# --- integers, as NumPy has them: a division by zero gives 0, what is too large wraps


@triton.jit
def whole_quotient(x, y):
    if x.dtype.is_int_signed():
        divisor = tl.where((y == 0) | (y == -1), 1, y)
        q = x // divisor
        r = x - q * divisor
        q = tl.where((r != 0) & ((r < 0) != (divisor < 0)), q - 1, q)
        return tl.where(y == 0, 0, tl.where(y == -1, -x, q))
    else:
        return tl.where(y == 0, 0, x // tl.where(y == 0, 1, y))


@triton.jit
def whole_remainder(x, y):
    if x.dtype.is_int_signed():
        divisor = tl.where((y == 0) | (y == -1), 1, y)
        r = x - (x // divisor) * divisor
        return tl.where((r != 0) & ((r < 0) != (divisor < 0)), r + divisor, r)
    else:
        divisor = tl.where(y == 0, 1, y)
        return x - (x // divisor) * divisor


@triton.jit
def whole_power(x, y):
    """By squaring. A negative exponent, which the CPU refuses, gives the whole part of the quotient: to look for one would take a
    copy to the host."""
    WIDTH: tl.constexpr = x.dtype.primitive_bitwidth
    base, left, result = x, y, x * 0 + 1
    for _ in tl.static_range(WIDTH):
        result = tl.where((left & 1) != 0, result * base, result)
        base = base * base
        left = left >> 1
    if x.dtype.is_int_signed():
        ends = tl.where(x == 1, 1, tl.where(x == -1, 1 - 2 * (y & 1), 0))
        result = tl.where(y < 0, ends.to(x.dtype), result)
    return result


@triton.jit
def shifted_left(x, y):
    is_inside = (y >= 0) & (y < x.dtype.primitive_bitwidth)
    return tl.where(is_inside, x << tl.where(is_inside, y, 0).to(x.dtype), 0)


@triton.jit
def shifted_right(x, y):
    """The sign fills up."""
    is_inside = (y >= 0) & (y < x.dtype.primitive_bitwidth)
    beyond = tl.where(x < 0, x * 0 - 1, x * 0) if x.dtype.is_int_signed() else x * 0
    return tl.where(is_inside, x >> tl.where(is_inside, y, 0).to(x.dtype), beyond)


# --- codes


@triton.jit
def next_code(x, y, LARGEST: tl.constexpr, NAN_CODE: tl.constexpr):
    """What follows x towards y, both floats or their codes. Beyond the code LARGEST lies NaN."""
    WIDTH: tl.constexpr = x.dtype.primitive_bitwidth
    SIZE: tl.constexpr = (1 << (WIDTH - 1)) - 1
    code, target = signed_code(x), signed_code(y)
    size, other = code & SIZE, target & SIZE
    a, b = tl.where(code < 0, -size, size), tl.where(target < 0, -other, other)
    stepped = tl.where((a < b) == (a > 0), code + 1, code - 1)
    from_zero = tl.where(b < 0, (code & 0) - SIZE, 1)
    found = tl.where(a == b, target, tl.where(a == 0, from_zero, stepped))
    found = tl.where((size > LARGEST) | (other > LARGEST), NAN_CODE, found)
    return found.to(code.dtype).to(x.dtype, bitcast=True)


@triton.jit
def signed_code(x):
    """The code of a value as a signed integer of its width."""
    WIDTH: tl.constexpr = x.dtype.primitive_bitwidth
    if WIDTH == 64:
        return x.to(tl.int64, bitcast=True)
    elif WIDTH == 32:
        return x.to(tl.int32, bitcast=True)
    elif WIDTH == 16:
        return x.to(tl.int16, bitcast=True)
    else:
        return x.to(tl.int8, bitcast=True)
