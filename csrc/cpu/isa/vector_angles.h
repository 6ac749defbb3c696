// Circular functions and their inverses on vectors of float, within 2 ULP (held by tests/test_vector_math.py).
#pragma once

#include "vector_round.h"

namespace ulpgrad::ULPGRAD_ISA::vm {

using Floats = Vec<float>;
using FloatBits = Vec<uint32_t>;

constexpr float kFarAngle = 8192.0f;  // from here on, whole quarter turns have too many digits for the parts of pi / 2
constexpr float kHalfPi = 1.5707964f, kHalfPiRest = -4.371139e-08f, kQuarterPi = 0.7853982f,
                kQuarterPiRest = -2.1855694e-08f;

ULPGRAD_INLINE bool any_from(Floats size, float limit) {
#if ULPGRAD_ISA_LEVEL == 2
  return _mm512_cmp_ps_mask((__m512)size, _mm512_set1_ps(limit), _CMP_GE_OQ) != 0;
#elif ULPGRAD_ISA_LEVEL == 1
  return _mm256_movemask_ps(_mm256_cmp_ps((__m256)size, _mm256_set1_ps(limit), _CMP_GE_OQ)) != 0;
#else
  const auto reached = size >= limit;
  int any = 0;
  for (int l = 0; l < kLanes<float>; ++l) any |= reached[l];
  return any != 0;
#endif
}

// x = n pi / 2 + rest + lost, |rest| <= pi / 4; the lowest two bits of `quarter` are those of n.
struct Angle {
  Floats rest, lost;
  FloatBits quarter;
};

// The same for those lanes that are far out. x is a whole number of 24 bits times a power of two, for which a table has
// 2 / pi, modulo 4: its first 28 bits, with which the product is exact in double, and the rest.
__attribute__((noinline, cold, unused)) static void to_far_angles(const float* x, Angle& angle) {
  constexpr int lowest = 127 + 13;  // the exponent of kFarAngle
  for (int l = 0; l < kLanes<float>; ++l) {
    const uint32_t size = bits(x[l]) & 0x7FFFFFFF;
    if (!(abs(x[l]) >= kFarAngle)) continue;
    const int exponent = int(size >> 23);
    if (exponent == 255) {
      angle.rest[l] = Real<float>::nan;
      continue;
    }
    const double digits = double(int32_t((size & 0x7FFFFF) | 0x800000));
    const double first = digits * polynomial::QUARTERS_HIGH_F64[exponent - lowest];
    const double second = digits * polynomial::QUARTERS_LOW_F64[exponent - lowest];
    const double whole = nearest(first + second);
    const double rest = ((first - whole) + second) * 1.5707963267948966;
    const double turned = x[l] < 0.0f ? -rest : rest;
    const uint32_t count = uint32_t(int64_t(whole));
    angle.rest[l] = float(turned);
    angle.lost[l] = float(turned - double(float(turned)));
    angle.quarter[l] = x[l] < 0.0f ? 0u - count : count;
  }
}

// pi / 2 in parts, of which the first three have 11 bits: their products with n are exact, also without FMA.
ULPGRAD_INLINE Angle angle_of(Floats x) {
  constexpr float first = 0x1.92p+0f, second = 0x1.fb8p-12f, third = -0x1.5ep-23f, fourth = 0x1.0b4612p-34f;
  const Floats shifted = x * 0.63661977f + Real<float>::round, n = shifted - Real<float>::round;
  const Floats exact = (x - n * first) - n * second, near = exact - n * third, rest = near - n * fourth;
  Angle angle = {rest, ((exact - near) - n * third) + ((near - rest) - n * fourth), bits(shifted)};
  if (any_from(abs(x), kFarAngle)) {
    alignas(kVectorBytes) float lanes[kLanes<float>];
    store(lanes, x);
    Angle far = angle;
    to_far_angles(lanes, far);
    angle = far;
  }
  return angle;
}

ULPGRAD_INLINE Floats sine_of(const Angle& a) {
  const Floats z = a.rest * a.rest;
  return a.rest + (a.rest * z * evaluate(polynomial::SIN_F32, z) + a.lost);
}

ULPGRAD_INLINE Floats cosine_of(const Angle& a) {
  const Floats z = a.rest * a.rest;
  return 1.0f - (0.5f * z - z * z * evaluate(polynomial::COS_F32, z));
}

// The sine of an angle, of so many quarter turns more.
ULPGRAD_INLINE Floats turned_sine(const Angle& a, uint32_t more) {
  const FloatBits quarter = a.quarter + more;
  const Floats chosen = (quarter & 1) != 0 ? cosine_of(a) : sine_of(a);
  return as<Floats>(bits(chosen) ^ ((quarter & 2) << 30));
}

ULPGRAD_INLINE Floats sin(Floats x) { return x == 0.0f ? x : turned_sine(angle_of(x), 0); }
ULPGRAD_INLINE Floats cos(Floats x) { return turned_sine(angle_of(x), 1); }

ULPGRAD_INLINE Floats tan(Floats x) {
  const Angle a = angle_of(x);
  const Floats z = a.rest * a.rest;
  const Floats t = a.rest + (a.rest * z * evaluate(polynomial::TAN_F32, z) + a.lost * (1.0f + 1.6f * z));
  return x == 0.0f ? x : (a.quarter & 1) != 0 ? -1.0f / t : t;
}

// asin(s) - s for |s| <= 1/2, whose square is z.
ULPGRAD_INLINE Floats arc_sine_rest(Floats s, Floats z) { return s * z * evaluate(polynomial::ASIN_F32, z); }

// By half the angle where |x| > 1/2, with what rounding pi / 2 less that loses.
ULPGRAD_INLINE Floats asin(Floats x) {
  const Floats size = abs(x), z = size > 0.5f ? (1.0f - size) * 0.5f : x * x;
  const Floats s = size > 0.5f ? sqrt(z) : size, rest = arc_sine_rest(s, z);
  const Floats left = kHalfPi - 2.0f * s, lost = (kHalfPi - left) - 2.0f * s;
  const Floats far = left + (lost - (2.0f * rest - kHalfPiRest));
  return copysign(size > 0.5f ? far : s + rest, x);
}

ULPGRAD_INLINE Floats acos(Floats x) {
  const Floats size = abs(x), z = size > 0.5f ? (1.0f - size) * 0.5f : x * x;
  const Floats s = size > 0.5f ? sqrt(z) : x, rest = arc_sine_rest(s, z);
  const Floats back = (2.0f * kHalfPi - 2.0f * s) - (2.0f * rest - 2.0f * kHalfPiRest);
  const Floats far = x < 0.0f ? back : 2.0f * s + 2.0f * rest;
  return size > 0.5f ? far : (kHalfPi - s) - (rest - kHalfPiRest);
}

// `eighths` quarters of pi, and atan(t) for |t| <= tan(pi / 8).
ULPGRAD_INLINE Floats arc_tangent(Floats t, Floats eighths) {
  const Floats z = t * t;
  return eighths * kQuarterPi + (t + (t * z * evaluate(polynomial::ATAN_F32, z) + eighths * kQuarterPiRest));
}

ULPGRAD_INLINE Floats atan(Floats x) {
  const Floats size = abs(x), one = all<Floats>(1), zero = {};
  const Floats over = size > 2.4142135f ? -one : size > 0.41421357f ? size - 1.0f : size;
  const Floats under = size > 2.4142135f ? size : size > 0.41421357f ? size + 1.0f : one;
  return copysign(arc_tangent(over / under, size > 2.4142135f ? one + one : size > 0.41421357f ? one : zero), x);
}

ULPGRAD_INLINE Floats atan2(Floats y, Floats x) {
  constexpr float infinity = Real<float>::infinity;
  const Floats one = all<Floats>(1), zero = {};
  Floats a = abs(y), b = abs(x);
  const auto infinite = (a == infinity) & (b == infinity);  // as far as each other
  a = infinite ? one : a;
  b = infinite ? one : b;
  const auto huge = (a > 0x1p126f) | (b > 0x1p126f);  // whose sum might overflow
  a = huge ? a * 0.25f : a;
  b = huge ? b * 0.25f : b;
  const auto steep = a > 2.4142135f * b, middle = a > 0.41421357f * b;
  const Floats over = steep ? -b : middle ? a - b : a, under = steep ? a : middle ? a + b : b;
  const Floats t = over / (under == 0.0f ? one : under), eighths = steep ? one + one : middle ? one : zero;
  const auto back = (bits(x) >> 31) != 0;
  return copysign(arc_tangent(back ? -t : t, back ? 4.0f - eighths : eighths), y);
}

}  // namespace ulpgrad::ULPGRAD_ISA::vm
