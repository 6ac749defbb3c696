// Activations, as a matrix product applies them to its finished values.
//
// float32 runs on vectors; the polynomials are least-squares fits of our own, each good to about 1e-8 of its function.
// float64 calls the C library, value by value.
#pragma once

#include <cmath>

#include "gemm.h"
#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

typedef int32_t Int32s __attribute__((vector_size(kVectorBytes)));

// c[0] + c[1] x + c[2] x^2 + ...
template <int count>
ULPGRAD_INLINE Vec<float> polynomial(Vec<float> x, const float (&c)[count]) {
  Vec<float> y = broadcast(c[count - 1]);
#pragma GCC unroll 16
  for (int i = count - 2; i >= 0; --i) y = y * x + broadcast(c[i]);
  return y;
}

// e^x = 2^n e^r with |r| <= ln(2) / 2; 2^n is applied in two steps, so that it may overflow or underflow.
ULPGRAD_INLINE Vec<float> exp(Vec<float> x) {
  x = x < -104.0f ? broadcast(-104.0f) : x;
  x = x > 89.0f ? broadcast(89.0f) : x;
  constexpr float rounder = 12582912.0f;  // 1.5 * 2^23: adding it leaves no fraction bits
  const Vec<float> n = (x * 1.44269504f + rounder) - rounder;
  const Vec<float> r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  const Vec<float> y = polynomial(r, {1.0f, 1.0f, 0.49999994f, 0.16666521f, 0.04166839f, 0.008368736f, 0.0013814558f});
  const Int32s exponent = __builtin_convertvector(n, Int32s), half = exponent >> 1;
  const Int32s first = (half + 127) << 23, second = (exponent - half + 127) << 23;
  return y * (Vec<float>)first * (Vec<float>)second;  // the casts keep the bits
}

ULPGRAD_INLINE Vec<float> absolute(Vec<float> x) { return x < 0.0f ? -x : x; }

ULPGRAD_INLINE Vec<float> sigmoid(Vec<float> x) { return 1.0f / (1.0f + exp(-x)); }

// An odd polynomial near zero, where 1 - 2 / (e^2x + 1) would cancel.
ULPGRAD_INLINE Vec<float> tanh(Vec<float> x) {
  const Vec<float> size = absolute(x), z = x * x;
  const Vec<float> near =
      x + x * z * polynomial(z, {-0.3333328f, 0.13331442f, -0.053739712f, 0.020639079f, -0.0057049785f});
  const Vec<float> far = 1.0f - 2.0f / (exp(size + size) + 1.0f);
  return size < 0.625f ? near : (x < 0.0f ? -far : far);
}

// x Phi(x), with Phi(-|x|) = erfc(u) / 2 = e^(-u^2) erfcx(u) / 2, u = |x| / sqrt 2: accurate in the lower tail too.
ULPGRAD_INLINE Vec<float> gelu(Vec<float> x) {
  const Vec<float> u = absolute(x) * 0.70710678f, t = 1.0f / (1.0f + 0.4f * u);
  const Vec<float> erfcx = t * polynomial(t, {0.22562803f, 0.22654697f, 0.20115881f, 0.19619748f, 0.07326959f,
                                              0.09722652f, 0.075993665f, -0.13649642f, 0.04047543f});
  const Vec<float> tail = 0.5f * exp(-u * u) * erfcx;
  return x * (x < 0.0f ? tail : 1.0f - tail);
}

// The vector operation an activation stands for. NaN stays NaN: comparisons with it are false.
template <Activation activation>
ULPGRAD_INLINE Vec<float> activate(Vec<float> x) {
  switch (activation) {
    case Activation::relu:
      return x < 0.0f ? Vec<float>{} : x;
    case Activation::gelu:
      return gelu(x);
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::tanh:
      return tanh(x);
    case Activation::sigmoid:
      return sigmoid(x);
    default:
      return x;
  }
}

template <Activation activation>
ULPGRAD_INLINE double activate_one(double x) {
  switch (activation) {
    case Activation::gelu:
      return 0.5 * x * std::erfc(-x * 0.70710678118654752440);
    case Activation::silu:
      return x / (1.0 + std::exp(-x));
    case Activation::tanh:
      return std::tanh(x);
    case Activation::sigmoid:
      return 1.0 / (1.0 + std::exp(-x));
    default:
      return x;
  }
}

template <Activation activation>
ULPGRAD_INLINE Vec<double> activate(Vec<double> x) {
  if constexpr (activation == Activation::none) return x;
  if constexpr (activation == Activation::relu) return x < 0.0 ? Vec<double>{} : x;
  for (int l = 0; l < kLanes<double>; ++l) x[l] = activate_one<activation>(x[l]);
  return x;
}

}  // namespace ulpgrad::ULPGRAD_ISA
