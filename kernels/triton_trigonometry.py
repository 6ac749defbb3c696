"""Circular and hyperbolic functions for Triton kernels, and their inverses: within 3 ULP in float32 and float64, for angles of
any size. Written in operations of `tl` alone, like triton_math.py.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: RET505 (of two branches on a type, Triton compiles one: what follows an `if` it would compile for both)

from __future__ import annotations

from ulpgrad.kernels.elementwise.coefficients import POLYNOMIALS
from ulpgrad.kernels.triton_exact import product_of
from ulpgrad.kernels.triton_launch import tl, triton
from ulpgrad.kernels.triton_math import (
    bits_of,
    copysign,
    divide,
    evaluate,
    exp_times,
    expm1,
    isfinite,
    isinf,
    log,
    log1p,
    nearest,
    signbit,
    square_root,
)

# Polynomials made like those of coefficients.py: (sin(r) - r) / r^3 and (cos(r) - 1 + r^2 / 2) / r^4 in r^2, |r| <= pi / 4;
# (atan(t) - t) / t^3 in t^2 <= 0.1717; (asin(x) - x) / x^3 in x^2 <= 1/4. Relative errors in float32: 2^-35, 2^-39, 2^-28 and
# 2^-30, in float64 2^-57 to 2^-59.
SIN_F32 = tl.constexpr(POLYNOMIALS["SIN_F32"])
SIN_F64 = tl.constexpr((
    -0.16666666666666666, 0.008333333333333333, -0.00019841269841269839, 2.7557319223981077e-06, -2.5052108382377827e-08,
    1.6059042777921172e-10, -7.646960948071415e-13, 2.791224100841528e-15,
))  # fmt: skip
COS_F32 = tl.constexpr(POLYNOMIALS["COS_F32"])
COS_F64 = tl.constexpr((
    0.041666666666666664, -0.001388888888888889, 2.4801587301587298e-05, -2.755731922398348e-07, 2.0876756986335384e-09,
    -1.1470745068029556e-11, 4.779375897774337e-14, -1.5518009109180154e-16,
))  # fmt: skip
ATAN_F32 = tl.constexpr(POLYNOMIALS["ATAN_F32"])
ATAN_F64 = tl.constexpr((
    -0.3333333333333333, 0.19999999999999993, -0.14285714285711498, 0.11111111110752325, -0.09090909066866446,
    0.07692306730961795, -0.0666664190830205, 0.05881923626133278, -0.05258025792007146, 0.04719294405472715,
    -0.04104029750497721, 0.0306262878283892, -0.013908703447207555,
))  # fmt: skip
ASIN_F32 = tl.constexpr(POLYNOMIALS["ASIN_F32"])
ASIN_F64 = tl.constexpr((
    0.16666666666666666, 0.07499999999999991, 0.0446428571428834, 0.030381944441363808, 0.02237215927967998,
    0.017352757477819787, 0.01396500993205362, 0.01154908661298724, 0.00979275132020368, 0.008135829925490744,
    0.008795006076538466, 0.00038085303313206264, 0.022553563638533867, -0.02402054491896284, 0.030718768995416843,
))  # fmt: skip
# 2 / pi in words of 64 bits, after a word of zeros; pi / 2 in parts of 33 bits, and in two of 53.
TWO_OVER_PI = tl.constexpr((
    0, 11743562013128004905, 18169587780923219392, 15808362127397457985, 18325537948574664033, 13196794004601950944,
    452944820249399836, 18311050168422213438, 16754012890938950788, 16833452818741296705, 4148332274289687028,
    11278244420634880059, 2303758334597371919, 17235013589178936607, 7869616827067468215, 5712322887342352941,
    8441921394348257659, 4397547296490951402, 7780917995555872008, 6197850593633725355, 17352294737506481693,
))  # fmt: skip
FIRST, SECOND, THIRD = map(
    tl.constexpr, map(float.fromhex, ("0x1.921fb544p+0", "0x1.0b4611a6p-34", "0x1.3198a2e037073p-69"))
)
HALF_PI, HALF_PI_REST = tl.constexpr(float.fromhex("0x1.921fb54442d18p+0")), tl.constexpr(6.123233995736766e-17)


@triton.jit
def word(index, offset: tl.constexpr):
    """The word of 2 / pi at index + offset, for each of a block of indices."""
    found = tl.full(index.shape, TWO_OVER_PI[offset], tl.uint64)
    for i in tl.static_range(1, 18):
        found = tl.where(index == i, tl.full((), TWO_OVER_PI[i + offset], tl.uint64), found)
    return found


@triton.jit
def far_quarters(x):
    """`quarters` for a finite |x| >= 2^-10, by the product of its 53 digits with the 192 bits of 2 / pi that matter: those above
    count whole turns, those below nothing."""
    bits = bits_of(tl.abs(x))
    digits = ((bits & ((1 << 52) - 1)) | (1 << 52)).to(tl.uint64)
    above = tl.where(isfinite(x), (bits >> 52).to(tl.int32) - (1075 - 62), 62)
    index, shift = above >> 6, (above & 63).to(tl.uint64)
    a, b, c, d = word(index, 0), word(index, 1), word(index, 2), word(index, 3)
    back = 63 - shift
    a, b, c = (a << shift) | ((b >> 1) >> back), (b << shift) | ((c >> 1) >> back), (c << shift) | ((d >> 1) >> back)
    low = b * digits
    carried = tl.umulhi(c, digits)
    middle = low + carried
    high = a * digits + tl.umulhi(b, digits) + (middle < low).to(tl.uint64)
    count = (high >> 62).to(tl.int32)
    high, middle = (high << 2) | (middle >> 62), (middle << 2) | ((c * digits) >> 62)
    is_upper = high.to(tl.int64, bitcast=True) < 0  # more than half a quarter: count up, and go back
    turned = tl.where(is_upper, -1, 0).to(tl.int64).to(tl.uint64, bitcast=True)
    high, middle = high ^ turned, middle ^ turned
    count = tl.where(is_upper, count + 1, count)
    first = (high >> 11).to(tl.float64) * 1.1102230246251565e-16  # 2^-53
    second = (high & 2047).to(tl.float64) * 5.421010862427522e-20 + middle.to(tl.float64) * 2.938735877055719e-39
    sum = first + second
    second = (first - sum) + second
    angle = tl.full((), HALF_PI, tl.float64)
    r, lost = product_of(sum, angle)
    small = lost + (sum * HALF_PI_REST + second * HALF_PI)
    is_negative = is_upper != signbit(x)
    return tl.where(signbit(x), -count, count) & 3, tl.where(is_negative, -r, r), tl.where(is_negative, -small, small)


@triton.jit
def quarters(x):
    """(n, r, small) of x = n pi / 2 + r + small, n modulo 4 and |r| about pi / 4 at most, for a block of float64."""
    size = tl.abs(x)
    n = nearest(tl.where(size < 1048576.0, x, 0.0) * 0.6366197723675814)
    rest, product = x - n * FIRST, n * SECOND  # both exact
    r = rest - product
    taken = r - rest
    small = ((rest - (r - taken)) - (product + taken)) - n * THIRD
    sum = r + small
    small = (r - sum) + small
    count = n.to(tl.int32) & 3
    is_far = (size >= 1048576.0) | ((size > 1.0) & (tl.abs(sum) < 1e-9))
    if tl.max(is_far.to(tl.int32)) > 0:
        far_count, far_r, far_small = far_quarters(x)
        count, sum, small = (
            tl.where(is_far, far_count, count),
            tl.where(is_far, far_r, sum),
            tl.where(is_far, far_small, small),
        )
    is_wrong = isfinite(x) == 0
    return count, tl.where(is_wrong, float("nan"), sum), tl.where(is_wrong, float("nan"), small)


@triton.jit
def sine_of(r, small):
    z = r * r
    if r.dtype == tl.float64:
        return r + (r * z * evaluate(z, SIN_F64, 8) + small * (1.0 - 0.5 * z))
    else:
        return r + r * z * evaluate(z, SIN_F32, 4)


@triton.jit
def cosine_of(r, small):
    z = r * r
    if r.dtype == tl.float64:
        near = 1.0 - 0.5 * z
        return near + (((1.0 - near) - 0.5 * z) + (z * z * evaluate(z, COS_F64, 8) - r * small))
    else:
        return 1.0 - (0.5 * z - z * z * evaluate(z, COS_F32, 4))


@triton.jit
def sine_and_cosine(x):
    """Both, of a block."""
    count, r, small = quarters(x.to(tl.float64))
    sine, cosine = sine_of(r.to(x.dtype), small.to(x.dtype)), cosine_of(r.to(x.dtype), small.to(x.dtype))
    is_odd = (count & 1) != 0
    s, c = tl.where(is_odd, cosine, sine), tl.where(is_odd, sine, cosine)
    return tl.where(x == 0.0, x, tl.where((count & 2) != 0, -s, s)), tl.where(((count + 1) & 2) != 0, -c, c)


@triton.jit
def sin(x):
    sine, _ = sine_and_cosine(x)
    return sine


@triton.jit
def cos(x):
    _, cosine = sine_and_cosine(x)
    return cosine


@triton.jit
def tan(x):
    sine, cosine = sine_and_cosine(x)
    return divide(sine, cosine)


@triton.jit
def atan2(y, x):
    """Of the shorter leg over the longer, turned by an eighth where that is more than tan(pi / 8); mirrored at both axes."""
    a, b = tl.abs(y), tl.abs(x)
    longer, shorter = tl.where(a > b, a, b), tl.where(a > b, b, a)
    t = divide(shorter, tl.where(longer == 0.0, 1.0, longer))
    t = tl.where(isinf(a) & isinf(b), 1.0, t)
    is_turned = t > 0.41421356
    t = tl.where(is_turned, divide(t - 1.0, t + 1.0), t)
    z = t * t
    if x.dtype == tl.float64:
        angle = t + t * z * evaluate(z, ATAN_F64, 13)
    else:
        angle = t + t * z * evaluate(z, ATAN_F32, 5)
    angle = tl.where(is_turned, 0.7853981633974483 + angle, angle)
    angle = tl.where(a > b, HALF_PI - angle, angle)
    return copysign(tl.where(signbit(x), 3.141592653589793 - angle, angle), y)


@triton.jit
def atan(x):
    return atan2(x, tl.where(x == x, 1.0, x))


@triton.jit
def asin_of(s, z):
    """asin(s) for |s| <= 1/2, and its square z."""
    if s.dtype == tl.float64:
        return s + s * z * evaluate(z, ASIN_F64, 15)
    else:
        return s + s * z * evaluate(z, ASIN_F32, 6)


@triton.jit
def asin(x):
    """By half the angle where |x| > 1/2."""
    size = tl.abs(x)
    is_far = size > 0.5
    z = tl.where(is_far, (1.0 - size) * 0.5, size * size)
    p = asin_of(tl.where(is_far, square_root(z), size), z)
    return copysign(tl.where(is_far, HALF_PI - 2.0 * p, p), x)


@triton.jit
def acos(x):
    size = tl.abs(x)
    is_far = size > 0.5
    z = tl.where(is_far, (1.0 - size) * 0.5, size * size)
    p = asin_of(tl.where(is_far, square_root(z), x), z)
    return tl.where(is_far, tl.where(x < 0.0, 3.141592653589793 - 2.0 * p, 2.0 * p), HALF_PI - p)


@triton.jit
def sinh(x):
    size = tl.abs(x)
    half = exp_times(size, -1)
    less = expm1(tl.where(size < 1.0, size, 1.0))
    return copysign(tl.where(size < 1.0, 0.5 * (less + divide(less, less + 1.0)), half - divide(0.25, half)), x)


@triton.jit
def cosh(x):
    half = exp_times(tl.abs(x), -1)
    return half + divide(0.25, half)


@triton.jit
def asinh(x):
    size = tl.abs(x)
    square = size * size
    near = log1p(size + divide(square, 1.0 + square_root(1.0 + square)))
    return copysign(tl.where(size < 1e9, near, log(size) + 0.6931471805599453), x)


@triton.jit
def acosh(x):
    t = x - 1.0
    near = log1p(t + square_root(2.0 * t + t * t))
    return tl.where(x < 1.0, float("nan"), tl.where(x < 1e9, near, log(x) + 0.6931471805599453))


@triton.jit
def atanh(x):
    size = tl.abs(x)
    return copysign(0.5 * log1p(divide(2.0 * size, 1.0 - size)), x)
