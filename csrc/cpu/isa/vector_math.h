// Elementary functions that vectorise: straight-line code without calls or branches, for float and double.
//
// Each is within about 2 ULP (bounds are held by tests/test_vector_math.py) over the whole range, with infinities, NaN,
// signed zeros and subnormals as C has them. Polynomials come from kernels/elementwise/coefficients.py by way of
// setup.py. `c ? a : b` compiles to a blend; comparisons are written so that NaN takes the branch that keeps it.
#pragma once

#include <cstdint>

#include "elementwise_polynomials.h"
#include "isa.h"

namespace ulpgrad::ULPGRAD_ISA::vm {

template <typename T>
struct Real;

template <>
struct Real<float> {
  using Bits = uint32_t;
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float lift = 60.0f, lower = 0x1p-60f;  // 2^(n + lift) is normal for any n that matters
  static constexpr float round = 12582912.0f;             // 1.5 * 2^23: adding it rounds to whole numbers
  static constexpr float infinity = __builtin_inff(), nan = __builtin_nanf(""), smallest_normal = 0x1p-126f;
  static constexpr float exp_low = -104.0f, decay_low = -110.0f, exp_high = 89.0f, expm1_low = -18.0f,
                         tanh_high = 10.0f;
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;  // high * 255 is exact
  static constexpr float tail_high = 15.0f, tail_center = 4.0f;
  static constexpr Bits sqrt_half = 0x3f3504f3u, half_width = 0x800u;  // half_width: rounds to 12 bits
  static constexpr const auto& exp_terms = polynomial::EXP_F32;
  static constexpr const auto& tail_terms = polynomial::TAIL_F32;
  static constexpr const auto& erf_terms = polynomial::ERF_F32;
};

template <>
struct Real<double> {
  using Bits = uint64_t;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double lift = 512.0, lower = 0x1p-512;
  static constexpr double round = 6755399441055744.0;
  static constexpr double infinity = __builtin_inf(), nan = __builtin_nan(""), smallest_normal = 0x1p-1022;
  static constexpr double exp_low = -746.0, decay_low = -760.0, exp_high = 710.0, expm1_low = -40.0, tanh_high = 20.0;
  static constexpr double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr double tail_high = 40.0, tail_center = 5.0;
  static constexpr Bits sqrt_half = 0x3fe6a09e667f3bcdu, half_width = 0x4000000u;
  static constexpr const auto& exp_terms = polynomial::EXP_F64;
  static constexpr const auto& tail_terms = polynomial::TAIL_F64;
  static constexpr const auto& erf_terms = polynomial::ERF_F64;
};

template <typename To, typename From>
ULPGRAD_INLINE To as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

template <typename T>
ULPGRAD_INLINE typename Real<T>::Bits bits(T x) {
  return as<typename Real<T>::Bits>(x);
}

template <typename T, int N>
ULPGRAD_INLINE T evaluate(const T (&terms)[N], T x) {
  T sum = terms[N - 1];
#pragma GCC unroll 32
  for (int i = N - 2; i >= 0; --i) sum = sum * x + terms[i];
  return sum;
}

// --- exact functions

ULPGRAD_INLINE float abs(float x) { return __builtin_fabsf(x); }
ULPGRAD_INLINE double abs(double x) { return __builtin_fabs(x); }
ULPGRAD_INLINE float sqrt(float x) { return __builtin_sqrtf(x); }
ULPGRAD_INLINE double sqrt(double x) { return __builtin_sqrt(x); }
ULPGRAD_INLINE float floor(float x) { return __builtin_floorf(x); }
ULPGRAD_INLINE double floor(double x) { return __builtin_floor(x); }
ULPGRAD_INLINE float ceil(float x) { return __builtin_ceilf(x); }
ULPGRAD_INLINE double ceil(double x) { return __builtin_ceil(x); }
ULPGRAD_INLINE float trunc(float x) { return __builtin_truncf(x); }
ULPGRAD_INLINE double trunc(double x) { return __builtin_trunc(x); }
ULPGRAD_INLINE float rint(float x) { return __builtin_rintf(x); }
ULPGRAD_INLINE double rint(double x) { return __builtin_rint(x); }
ULPGRAD_INLINE float copysign(float x, float y) { return __builtin_copysignf(x, y); }
ULPGRAD_INLINE double copysign(double x, double y) { return __builtin_copysign(x, y); }

ULPGRAD_INLINE float fma(float x, float y, float z) { return __builtin_fmaf(x, y, z); }
ULPGRAD_INLINE double fma(double x, double y, double z) { return __builtin_fma(x, y, z); }

template <typename T>
ULPGRAD_INLINE T maximum(T x, T y) {
  const T larger = x > y ? x : y;  // two selections: GCC does not vectorise nested ones of a joined condition
  return x != x ? x : larger;
}

template <typename T>
ULPGRAD_INLINE T minimum(T x, T y) {
  const T smaller = x < y ? x : y;
  return x != x ? x : smaller;
}

template <typename T>
ULPGRAD_INLINE bool isnan(T x) {
  return x != x;
}

template <typename T>
ULPGRAD_INLINE bool isinf(T x) {
  return abs(x) == Real<T>::infinity;
}

template <typename T>
ULPGRAD_INLINE bool isfinite(T x) {
  return abs(x) < Real<T>::infinity;
}

template <typename T>
ULPGRAD_INLINE bool signbit(T x) {
  return bits(x) >> (sizeof(T) * 8 - 1);
}

// --- exponentials

// 2^n for a whole n with -bias < n <= bias.
template <typename T>
ULPGRAD_INLINE T power_of_two(T n) {
  return as<T>(bits(n + (Real<T>::round + Real<T>::bias)) << Real<T>::mantissa);
}

template <typename T>
ULPGRAD_INLINE T nearest(T x) {
  return (x + Real<T>::round) - Real<T>::round;
}

// x = n ln 2 + rest, |rest| <= ln 2 / 2.
template <typename T>
ULPGRAD_INLINE T reduce(T x, T& n) {
  n = nearest(x * T(1.4426950408889634));
  return (x - n * Real<T>::ln2_high) - n * Real<T>::ln2_low;
}

// exp of the rest.
template <typename T>
ULPGRAD_INLINE T exp_rest(T r) {
  return T(1) + (r + r * r * evaluate(Real<T>::exp_terms, r));
}

// The power of two is applied in two steps, so that subnormal results round once.
template <typename T>
ULPGRAD_INLINE T exp(T x) {
  x = x < Real<T>::exp_low ? Real<T>::exp_low : x;
  x = x > Real<T>::exp_high ? Real<T>::exp_high : x;
  T n;
  const T r = reduce(x, n);
  const T half = nearest(n * T(0.5));
  return exp_rest(r) * power_of_two(half) * power_of_two(n - half);
}

// exp(x + small) for decay_low <= x <= 0: with nothing to overflow, the second step is a constant.
template <typename T>
ULPGRAD_INLINE T exp_decay(T x, T small) {
  T n;
  const T r = reduce(x, n) + small;
  return exp_rest(r) * power_of_two(n + Real<T>::lift) * Real<T>::lower;
}

template <typename T>
ULPGRAD_INLINE T expm1(T given) {
  T x = given < Real<T>::expm1_low ? Real<T>::expm1_low : given;
  x = x > Real<T>::exp_high ? Real<T>::exp_high : x;
  T n;
  const T r = reduce(x, n);
  const T p = r + r * r * evaluate(Real<T>::exp_terms, r);
  const T half = nearest(n * T(0.5)), rest = n - half;
  const T scale = power_of_two(half);
  return copysign((scale * p + (scale - power_of_two(-rest))) * power_of_two(rest), given);
}

template <typename T>
ULPGRAD_INLINE T tanh(T x) {
  const T size = abs(x) > Real<T>::tanh_high ? Real<T>::tanh_high : abs(x);
  const T e = expm1(size + size);
  return copysign(e / (e + T(2)), x);
}

// The exponential of whichever sign does not overflow.
template <typename T>
ULPGRAD_INLINE T sigmoid(T x) {
  const T size = -abs(x);
  const T e = exp_decay(size < Real<T>::decay_low ? Real<T>::decay_low : size, T(0));
  return (x < T(0) ? e : T(1)) / (T(1) + e);
}

// --- logarithms

// x = 2^n (1 + f), 1 + f between sqrt(1/2) and sqrt(2); x positive, finite and normal.
template <typename T>
ULPGRAD_INLINE T split(T x, T& n) {
  using Bits = typename Real<T>::Bits;
  constexpr int mantissa = Real<T>::mantissa, bias = Real<T>::bias;
  const Bits shifted = bits(x) - Real<T>::sqrt_half;
  const Bits exponent =
      (shifted + (Bits(bias) << mantissa)) >> mantissa;  // never negative: no arithmetic shift is needed
  // whole number to floating point by its bits, since AVX2 converts no 64-bit integers
  constexpr T unit = T(Bits(1) << mantissa);
  n = as<T>(bits(unit) | exponent) - (unit + T(bias));
  return as<T>((shifted & ((Bits(1) << mantissa) - 1)) + Real<T>::sqrt_half) - T(1);
}

// log(1 + f) + n ln 2
ULPGRAD_INLINE float join_log(float f, float n) {
  const float rest = f * f * (f * evaluate(polynomial::LOG_F32, f) - 0.5f) + n * Real<float>::ln2_low;
  return n * Real<float>::ln2_high + (f + rest);
}

ULPGRAD_INLINE double join_log(double f, double n) {
  const double s = f / (2.0 + f), z = s * s, half_square = 0.5 * f * f;
  const double tail = s * (half_square + z * evaluate(polynomial::LOG_F64, z)) + n * Real<double>::ln2_low;
  return n * Real<double>::ln2_high + (f - (half_square - tail));
}

template <typename T>
ULPGRAD_INLINE T log(T x) {
  const bool tiny = x < Real<T>::smallest_normal;
  constexpr T up = T(typename Real<T>::Bits(1) << Real<T>::mantissa);
  T n;
  const T f = split(tiny ? x * up : x, n);
  T y = join_log(f, tiny ? n - T(Real<T>::mantissa) : n);
  y = x > T(0) ? y : (x == T(0) ? -Real<T>::infinity : Real<T>::nan);
  return x == Real<T>::infinity ? x : y;
}

// What rounding 1 + x lost is put back into f; it counts for nothing where 1 + x is large.
template <typename T>
ULPGRAD_INLINE T log1p(T x) {
  const T u = T(1) + x;
  const T lost = x > T(1) ? T(1) - (u - x) : x - (u - T(1));
  T n;
  const T f = split(u, n);
  const T scale = power_of_two(n > T(Real<T>::mantissa + 8) ? T(-Real<T>::mantissa - 8) : -n);
  T y = copysign(join_log(f + lost * scale, n), x);
  y = x > T(-1) ? y : (x == T(-1) ? -Real<T>::infinity : Real<T>::nan);
  return x == Real<T>::infinity ? x : y;
}

ULPGRAD_INLINE float log2(float x) { return float(log(double(x)) * 1.4426950408889634); }
ULPGRAD_INLINE float log10(float x) { return float(log(double(x)) * 0.4342944819032518); }

// --- quotients and lengths

ULPGRAD_INLINE float fmod(float x, float y) { return __builtin_fmodf(x, y); }
ULPGRAD_INLINE double fmod(double x, double y) { return __builtin_fmod(x, y); }

// x - q y, exact if q is within one of x / y and below 2^mantissa.
ULPGRAD_INLINE float rest_of(float x, float q, float y) { return float(double(x) - double(q) * double(y)); }
ULPGRAD_INLINE double rest_of(double x, double q, double y) { return fma(-q, y, x); }

// The remainder with the divisor's sign, from C's with the dividend's.
template <typename T>
ULPGRAD_INLINE T signed_remainder(T r, T y) {
  r = (r != T(0)) & (signbit(r) != signbit(y)) ? r + y : r;
  return r == T(0) ? copysign(T(0), y) : r;
}

// NaN for quotients that the type cannot count.
template <typename T>
ULPGRAD_INLINE T remainder(T x, T y) {
  const T ratio = x / y, q = trunc(ratio);
  T r = q == T(0) ? x : rest_of(x, q, y);
  r = (r != T(0)) & (signbit(r) != signbit(x)) ? r + copysign(y, x) : (abs(r) >= abs(y) ? r - copysign(y, x) : r);
  const bool counted = abs(ratio) < T(typename Real<T>::Bits(1) << Real<T>::mantissa);
  return counted ? signed_remainder(r, y) : Real<T>::nan;
}

// Those quotients: the C library counts them bit by bit, so this does not vectorise.
template <typename T>
ULPGRAD_INLINE T far_remainder(T x, T y) {
  return signed_remainder(fmod(x, y), y);
}

// The floor of the exact quotient, which rounding x / y may have carried over a whole number.
template <typename T>
ULPGRAD_INLINE T floor_divide(T x, T y) {
  const T ratio = x / y, q = floor(ratio);
  const T r = q == T(0) ? x : rest_of(x, q, y);
  const bool counted = abs(ratio) < T(typename Real<T>::Bits(1) << Real<T>::mantissa);
  const T lowered = counted & (r != T(0)) & (signbit(r) != signbit(y)) ? q - T(1) : q;
  return isinf(x) & (y != T(0)) ? Real<T>::nan : (lowered == T(0) ? copysign(T(0), ratio) : lowered);
}

ULPGRAD_INLINE float hypot(float x, float y) {
  const float length = float(sqrt(double(x) * double(x) + double(y) * double(y)));
  return isinf(x) | isinf(y) ? Real<float>::infinity : length;
}

ULPGRAD_INLINE double hypot(double x, double y) {
  const double a = abs(x), b = abs(y), longer = a > b ? a : b, shorter = a > b ? b : a;
  const double ratio = shorter / longer, length = longer * sqrt(1.0 + ratio * ratio);
  const double finite = isnan(x) | isnan(y) ? x + y : (longer == 0.0 ? 0.0 : length);
  return isinf(x) | isinf(y) ? Real<double>::infinity : finite;
}

// --- the normal distribution

// exp(-z^2 / 2) for 0 <= z <= tail_high: the square in two parts, since its rounding would be magnified by itself.
template <typename T>
ULPGRAD_INLINE T bell(T z) {
#ifdef __FMA__
  const T high = z * z, low = fma(z, z, -high);
#else
  const T top = as<T>((bits(z) + Real<T>::half_width) & ~(2 * Real<T>::half_width - 1));  // its square is exact
  const T high = top * top, low = (z - top) * (z + top);
#endif
  return exp_decay(T(-0.5) * high, T(-0.5) * low);
}

// 1 - normal_cdf(z) for z >= 0.
template <typename T>
ULPGRAD_INLINE T upper_tail(T z) {
  z = z > Real<T>::tail_high ? Real<T>::tail_high : z;
  const T inverse = T(1) / (z + Real<T>::tail_center);
  return bell(z) * (evaluate(Real<T>::tail_terms, (z - Real<T>::tail_center) * inverse) * inverse);
}

template <typename T>
ULPGRAD_INLINE T normal_cdf(T x) {
  const T tail = upper_tail(abs(x));
  return x < T(0) ? tail : T(1) - tail;
}

template <typename T>
ULPGRAD_INLINE T normal_density(T x) {
  const T z = abs(x) > Real<T>::tail_high ? Real<T>::tail_high : abs(x);
  return T(0.3989422804014327) * bell(z);
}

template <typename T>
ULPGRAD_INLINE T erf(T x) {
  const T size = abs(x);
  const T near = x + x * evaluate(Real<T>::erf_terms, size > T(1) ? T(1) : size * size);
  const T far = copysign(T(1) - T(2) * upper_tail(size * T(1.4142135623730951)), x);
  return size > T(1) ? far : near;
}

}  // namespace ulpgrad::ULPGRAD_ISA::vm
