// Elementary functions: straight-line code without calls or branches, for float, double and vectors of them (simd.h),
// so that loops over values vectorise and loops over vectors need nothing of their own.
//
// Each float32 result is within 2 ULP over the whole range (bounds are held by tests/test_vector_math.py), with
// infinities, NaN, signed zeros and subnormals as C has them. Polynomials come from kernels/elementwise/coefficients.py
// by way of setup.py. `c ? a : b` compiles to a blend; comparisons are written so that NaN takes the branch that keeps
// it.
#pragma once

#include <cstdint>
#include <type_traits>

#include "elementwise_polynomials.h"
#include "simd.h"

#if ULPGRAD_ISA_LEVEL == 2
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC's own header, which names undefined registers so
#endif

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
  static constexpr float exp_low = -104.0f, decay_low = -110.0f, exp_high = 89.0f, expm1_low = -18.0f;
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;  // high * 255 is exact
  static constexpr float tail_high = 15.0f, tail_center = 4.0f;
  static constexpr Bits sqrt_half = 0x3f3504f3u, half_width = 0x800u;  // half_width: rounds to 12 bits
  static constexpr float tanh_near = 0.625f;
  static constexpr const auto& exp_terms = polynomial::EXP_F32;
  static constexpr const auto& tanh_terms = polynomial::TANH_F32;
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
  static constexpr double exp_low = -746.0, decay_low = -760.0, exp_high = 710.0, expm1_low = -40.0;
  static constexpr double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;
  static constexpr double tail_high = 40.0, tail_center = 5.0;
  static constexpr Bits sqrt_half = 0x3fe6a09e667f3bcdu, half_width = 0x4000000u;
  static constexpr double tanh_near = 0.625;
  static constexpr const auto& exp_terms = polynomial::EXP_F64;
  static constexpr const auto& tanh_terms = polynomial::TANH_F64;
  static constexpr const auto& tail_terms = polynomial::TAIL_F64;
  static constexpr const auto& erf_terms = polynomial::ERF_F64;
};

// What stands behind a value V: its scalar (V itself, or one lane) and its bits as unsigned integers.
template <typename V, bool scalar = std::is_arithmetic_v<V>>
struct Value {
  using Scalar = V;
  using Bits = typename Real<V>::Bits;
};

template <typename V>
struct Value<V, false> {
  using Scalar = std::decay_t<decltype(V{}[0])>;
  typedef typename Real<Scalar>::Bits Bits __attribute__((vector_size(sizeof(V))));
};

template <typename V>
using Scalar = typename Value<V>::Scalar;

template <typename V>
using Of = Real<Scalar<V>>;

// A constant as a V.
template <typename V>
ULPGRAD_INLINE V all(Scalar<V> x) {
  if constexpr (std::is_arithmetic_v<V>) {
    return x;
  } else {
    return x - V{};
  }
}

template <typename To, typename From>
ULPGRAD_INLINE To as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

template <typename V>
ULPGRAD_INLINE auto bits(V x) {
  return as<typename Value<V>::Bits>(x);
}

template <typename V>
constexpr auto kSign = typename Of<V>::Bits(1) << (sizeof(Scalar<V>) * 8 - 1);

template <typename V, typename T, int N>
ULPGRAD_INLINE V evaluate(const T (&terms)[N], V x) {
  V sum = all<V>(terms[N - 1]);
#pragma GCC unroll 32
  for (int i = N - 2; i >= 0; --i) sum = sum * x + terms[i];
  return sum;
}

// --- exact functions

template <typename V>
ULPGRAD_INLINE V abs(V x) {
  return as<V>(bits(x) & ~kSign<V>);
}

template <typename V>
ULPGRAD_INLINE V copysign(V x, V y) {
  return as<V>((bits(x) & ~kSign<V>) | (bits(y) & kSign<V>));
}

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
template <typename V>
ULPGRAD_INLINE V power_of_two(V n) {
  return as<V>(bits(n + (Of<V>::round + Of<V>::bias)) << Of<V>::mantissa);
}

template <typename V>
ULPGRAD_INLINE V nearest(V x) {
  return (x + Of<V>::round) - Of<V>::round;
}

// y 2^n, where y is about 1 and n whole: in two steps, so that a subnormal result is rounded once.
template <typename V>
ULPGRAD_INLINE V scaled(V y, V n) {
  const V half = nearest(n * Scalar<V>(0.5));
  return y * power_of_two(half) * power_of_two(n - half);
}

// The same where the result is at most about 1: with nothing to overflow, the second step is a constant.
template <typename V>
ULPGRAD_INLINE V scaled_down(V y, V n) {
  return y * power_of_two(n + Of<V>::lift) * Of<V>::lower;
}

#if ULPGRAD_ISA_LEVEL == 2  // one instruction, with the same results
ULPGRAD_INLINE Vec<float> scaled(Vec<float> y, Vec<float> n) { return (Vec<float>)_mm512_scalef_ps(y, n); }
ULPGRAD_INLINE Vec<double> scaled(Vec<double> y, Vec<double> n) { return (Vec<double>)_mm512_scalef_pd(y, n); }
ULPGRAD_INLINE Vec<float> scaled_down(Vec<float> y, Vec<float> n) { return scaled(y, n); }
ULPGRAD_INLINE Vec<double> scaled_down(Vec<double> y, Vec<double> n) { return scaled(y, n); }
#endif

// x = n ln 2 + rest, |rest| <= ln 2 / 2.
template <typename V>
ULPGRAD_INLINE V reduce(V x, V& n) {
  n = nearest(x * Scalar<V>(1.4426950408889634));
  return (x - n * Of<V>::ln2_high) - n * Of<V>::ln2_low;
}

// exp of the rest, less one.
template <typename V>
ULPGRAD_INLINE V expm1_rest(V r) {
  return r + r * r * evaluate(Of<V>::exp_terms, r);
}

template <typename V>
ULPGRAD_INLINE V exp_rest(V r) {
  return Scalar<V>(1) + expm1_rest(r);
}

template <typename V>
ULPGRAD_INLINE V exp(V x) {
  x = x < Of<V>::exp_low ? all<V>(Of<V>::exp_low) : x;
  x = x > Of<V>::exp_high ? all<V>(Of<V>::exp_high) : x;
  V n;
  const V r = reduce(x, n);
  return scaled(exp_rest(r), n);
}

// exp(x + small) for decay_low <= x <= 0.
template <typename V>
ULPGRAD_INLINE V exp_decay(V x, V small) {
  V n;
  const V r = reduce(x, n) + small;
  return scaled_down(exp_rest(r), n);
}

// exp(x) for x that is at most about 0, as after the maximum is taken off.
template <typename V>
ULPGRAD_INLINE V exp_of_shifted(V x) {
  x = x < Of<V>::decay_low ? all<V>(Of<V>::decay_low) : x;
  V n;
  const V r = reduce(x, n);
  return scaled_down(exp_rest(r), n);
}

template <typename V>
ULPGRAD_INLINE V expm1(V given) {
  V x = given < Of<V>::expm1_low ? all<V>(Of<V>::expm1_low) : given;
  x = x > Of<V>::exp_high ? all<V>(Of<V>::exp_high) : x;
  V n;
  const V r = reduce(x, n);
  const V p = expm1_rest(r);
  const V half = nearest(n * Scalar<V>(0.5)), rest = n - half;
  const V scale = power_of_two(half);
  return copysign((scale * p + (scale - power_of_two(-rest))) * power_of_two(rest), given);
}

// An odd polynomial near zero, where 1 - 2 / (exp(2 x) + 1) would cancel.
template <typename V>
ULPGRAD_INLINE V tanh(V x) {
  using T = Scalar<V>;
  const V size = abs(x), z = x * x;
  const V near = size + size * z * evaluate(Of<V>::tanh_terms, z);
  const V e = exp_of_shifted(size * T(-2)), far = (T(1) - e) / (T(1) + e);
  return copysign(size < Of<V>::tanh_near ? near : far, x);
}

// e / (1 + e) or 1 / (1 + e), e the exponential that does not overflow. What rounding 1 + e lost is taken out of the
// upper e before that is rounded (1 / (1 + e) is near enough a line for this).
template <typename V>
ULPGRAD_INLINE V sigmoid(V x) {
  using T = Scalar<V>;
  V size = -abs(x), n;
  size = size < Of<V>::decay_low ? all<V>(Of<V>::decay_low) : size;
  const V p = expm1_rest(reduce(size, n)), q = T(1) + p;
  const V e = scaled_down(q, n), sum = T(1) + e, lost = (e - (sum - T(1))) * (T(1.4118) - T(0.4706) * sum);
  return (x < T(0) ? scaled_down(T(1) + (p - lost * q), n) : all<V>(1)) / sum;
}

// --- logarithms

// x = 2^n (1 + f), 1 + f between sqrt(1/2) and sqrt(2); x positive, finite and normal.
template <typename V>
ULPGRAD_INLINE V split(V x, V& n) {
  using Bits = typename Of<V>::Bits;
  using T = Scalar<V>;
  constexpr int mantissa = Of<V>::mantissa, bias = Of<V>::bias;
  const auto shifted = bits(x) - Of<V>::sqrt_half;
  const auto exponent = (shifted + (Bits(bias) << mantissa)) >> mantissa;  // never negative: no arithmetic shift needed
  // whole number to floating point by its bits, since AVX2 converts no 64-bit integers
  constexpr T unit = T(Bits(1) << mantissa);
  n = as<V>(exponent | bits(unit)) - (unit + T(bias));
  return as<V>((shifted & ((Bits(1) << mantissa) - 1)) + Of<V>::sqrt_half) - T(1);
}

// log(1 + f) + n ln 2
template <typename V>
ULPGRAD_INLINE V join_log(V f, V n) {
  using T = Scalar<V>;
  if constexpr (std::is_same_v<T, float>) {
    const V rest = f * f * (f * evaluate(polynomial::LOG_F32, f) - 0.5f) + n * Of<V>::ln2_low;
    return n * Of<V>::ln2_high + (f + rest);
  } else {
    const V s = f / (2.0 + f), z = s * s, half_square = 0.5 * f * f;
    const V tail = s * (half_square + z * evaluate(polynomial::LOG_F64, z)) + n * Of<V>::ln2_low;
    return n * Of<V>::ln2_high + (f - (half_square - tail));
  }
}

// What a logarithm gives where x is not positive and finite.
template <typename V>
ULPGRAD_INLINE V log_edges(V y, V x, Scalar<V> zero) {
  y = x > zero ? y : (x == zero ? all<V>(-Of<V>::infinity) : all<V>(Of<V>::nan));
  return x == Of<V>::infinity ? x : y;
}

template <typename V>
ULPGRAD_INLINE V log(V x) {
  using T = Scalar<V>;
  constexpr T up = T(typename Of<V>::Bits(1) << Of<V>::mantissa);
  V n;
  const V f = split(x < Of<V>::smallest_normal ? x * up : x, n);
  const V y = join_log(f, x < Of<V>::smallest_normal ? n - T(Of<V>::mantissa) : n);
  return log_edges(y, x, T(0));
}

// What rounding 1 + x lost is put back into f; it counts for nothing where 1 + x is large.
template <typename V>
ULPGRAD_INLINE V log1p(V x) {
  using T = Scalar<V>;
  constexpr T largest = T(Of<V>::mantissa + 8);
  const V u = T(1) + x;
  const V lost = x > T(1) ? T(1) - (u - x) : x - (u - T(1));
  V n;
  const V f = split(u, n);
  const V scale = power_of_two(n > largest ? all<V>(-largest) : -n);
  return log_edges(copysign(join_log(f + lost * scale, n), x), x, T(-1));
}

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
template <typename V>
ULPGRAD_INLINE V bell(V z) {
  using T = Scalar<V>;
  const V top = as<V>((bits(z) + Of<V>::half_width) & ~(2 * Of<V>::half_width - 1));  // its square is exact
  const V high = top * top, low = (z - top) * (z + top);
  return exp_decay(T(-0.5) * high, T(-0.5) * low);
}

// 1 - normal_cdf(z) for z >= 0.
template <typename V>
ULPGRAD_INLINE V upper_tail(V z) {
  z = z > Of<V>::tail_high ? all<V>(Of<V>::tail_high) : z;
  const V inverse = Scalar<V>(1) / (z + Of<V>::tail_center);
  return bell(z) * (evaluate(Of<V>::tail_terms, (z - Of<V>::tail_center) * inverse) * inverse);
}

template <typename V>
ULPGRAD_INLINE V normal_cdf(V x) {
  using T = Scalar<V>;
  const V tail = upper_tail(abs(x));
  return x < T(0) ? tail : T(1) - tail;
}

template <typename V>
ULPGRAD_INLINE V normal_density(V x) {
  const V z = abs(x) > Of<V>::tail_high ? all<V>(Of<V>::tail_high) : abs(x);
  return Scalar<V>(0.3989422804014327) * bell(z);
}

template <typename V>
ULPGRAD_INLINE V erf(V x) {
  using T = Scalar<V>;
  const V size = abs(x);
  const V near = x + x * evaluate(Of<V>::erf_terms, size > T(1) ? all<V>(1) : size * size);
  const V far = copysign(T(1) - T(2) * upper_tail(size * T(1.4142135623730951)), x);
  return size > T(1) ? far : near;
}

}  // namespace ulpgrad::ULPGRAD_ISA::vm
