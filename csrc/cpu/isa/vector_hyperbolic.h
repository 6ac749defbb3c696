// Hyperbolic functions and their inverses, and logarithms of other bases, on vectors of float: within 2 ULP (held by
// tests/test_vector_math.py).
#pragma once

#include "vector_round.h"

namespace ulpgrad::ULPGRAD_ISA::vm {

// exp(size) / 2 for size >= 0, which overflows only where the result does.
ULPGRAD_INLINE Vec<float> half_exp(Vec<float> size) {
  size = size > 90.0f ? all<Vec<float>>(90.0f) : size;
  Vec<float> n;
  const Vec<float> r = reduce(size, n);
  return scaled(exp_rest(r), n - 1.0f);
}

// x + x^3 p(x^2)
template <int N>
ULPGRAD_INLINE Vec<float> odd(const float (&terms)[N], Vec<float> x, Vec<float> square) {
  return x + x * square * evaluate(terms, square);
}

ULPGRAD_INLINE Vec<float> sinh(Vec<float> x) {
  const Vec<float> size = abs(x), half = half_exp(size), near = odd(polynomial::SINH_F32, size, x * x);
  return copysign(size < 1.0f ? near : half - 0.25f / half, x);
}

ULPGRAD_INLINE Vec<float> cosh(Vec<float> x) {
  const Vec<float> half = half_exp(abs(x));
  return half + 0.25f / half;
}

// log(2^more (u + lost)) for u >= 1.
ULPGRAD_INLINE Vec<float> log_of_sum(Vec<float> u, Vec<float> lost, Vec<float> more) {
  Vec<float> n;
  const Vec<float> f = split(u, n), least = all<Vec<float>>(-100.0f);  // lost is 0 where u is so large
  return join_log(f + lost * power_of_two(n > 100.0f ? least : -n), n + more);
}

constexpr float kFarRoot = 0x1p30f;  // from here on x^2 + 1 and x^2 - 1 are x^2

// log(x + sqrt(x^2 + 1)), with what rounding the sum lost.
ULPGRAD_INLINE Vec<float> asinh(Vec<float> x) {
  const Vec<float> size = abs(x), zero = {}, near = odd(polynomial::ASINH_F32, size, x * x);
  const Vec<float> root = sqrt(size * size + 1.0f), sum = size + root, lost = size - (sum - root);
  const auto is_far = size > kFarRoot;
  const Vec<float> far = log_of_sum(is_far ? size : sum, is_far ? zero : lost, is_far ? zero + 1.0f : zero);
  return copysign(size < 1.0f ? near : size < Real<float>::infinity ? far : size, x);
}

// log(1 + t + sqrt(2 t + t^2)), t = x - 1: both sums with what rounding them lost.
ULPGRAD_INLINE Vec<float> acosh(Vec<float> x) {
  const Vec<float> zero = {}, t = x - 1.0f, root = sqrt(t * t + 2.0f * t), w = t + root, u = 1.0f + w;
  const Vec<float> small = (t > root ? root - (w - t) : t - (w - root)) + (w > 1.0f ? 1.0f - (u - w) : w - (u - 1.0f));
  const auto is_far = x > kFarRoot;
  const Vec<float> y = log_of_sum(is_far ? x : u, is_far ? zero : small, is_far ? zero + 1.0f : zero);
  return x < 1.0f ? all<Vec<float>>(Real<float>::nan) : x < Real<float>::infinity ? y : x;
}

// log1p(2 x / (1 - x)) / 2
ULPGRAD_INLINE Vec<float> atanh(Vec<float> x) {
  const Vec<float> size = abs(x), near = odd(polynomial::ATANH_F32, size, x * x);
  return copysign(size < 0.5f ? near : 0.5f * log1p(2.0f * size / (1.0f - size)), x);
}

// The logarithm to a base: factors are log_base(e) and log_base(2), each in a part of few digits, with which products
// are exact, and a rest.
ULPGRAD_INLINE Vec<float> log_to_base(Vec<float> x, float e_high, float e_low, float two_high, float two_low) {
  using V = Vec<float>;
  const auto tiny = x < Real<float>::smallest_normal;
  V n;
  const V f = split(tiny ? x * 0x1p23f : x, n);
  n = tiny ? n - 23.0f : n;
  const V half = 0.5f * f * f, cubic = f * f * (f * evaluate(polynomial::LOG_F32, f));
  const V high = as<V>(bits(f - half) & 0xFFFFF000u), low = ((f - high) - half) + cubic;
  const V whole = n * two_high, part = high * e_high, sum = whole + part;
  const V rest = ((whole - sum) + part) + (low * e_high + ((low + high) * e_low + n * two_low));
  return log_edges(sum + rest, x, 0.0f);
}

ULPGRAD_INLINE Vec<float> log2(Vec<float> x) { return log_to_base(x, 1.44287109375f, -0.00017605285f, 1.0f, 0.0f); }

ULPGRAD_INLINE Vec<float> log10(Vec<float> x) {
  return log_to_base(x, 0.434326171875f, -3.168997e-05f, 0.301025390625f, 4.605039e-06f);
}

}  // namespace ulpgrad::ULPGRAD_ISA::vm
