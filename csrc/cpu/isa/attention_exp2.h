// 2^x of vectors, for weights: scores are kept in units of log2, so that nothing is multiplied but by the polynomial.
#pragma once

#include <type_traits>

#include "attention_multiply.h"

namespace ulpgrad::ULPGRAD_ISA {

template <typename T>
struct Exp2;

// (2^r - 1) / r on |r| <= 1/2, interpolated in Chebyshev nodes, to 2^-22.
template <>
struct Exp2<float> {
  static constexpr float terms[] = {0.6931471824645996f, 0.2402234971523285f, 0.055503811687231064f,
                                    0.00966636836528778f, 0.0013381302123889327f};
  static constexpr float round = 0x1.8p23f, low = -126.0f, high = 127.0f;  // adding `round` rounds to whole numbers
  static constexpr int mantissa = 23;
  using Bits = uint32_t;
};

// the same, to 2^-55
template <>
struct Exp2<double> {
  static constexpr double terms[] = {0.6931471805599453,    0.24022650695910097,   0.0555041086648216,
                                     0.009618129107606888,  0.0013333558146416936, 0.0001540353044173605,
                                     1.525273382983612e-05, 1.321544258792169e-06, 1.0178062445845774e-07,
                                     7.072585949269223e-09, 4.4549605981865186e-10};
  static constexpr double round = 0x1.8p52, low = -1022.0, high = 1023.0;
  static constexpr int mantissa = 52;
  using Bits = uint64_t;
};

template <typename T>
ULPGRAD_TILE Vec<T> exp2_rest(Vec<T> r) {
  constexpr int terms = sizeof(Exp2<T>::terms) / sizeof(T);
  Vec<T> sum = broadcast(Exp2<T>::terms[terms - 1]);
#pragma GCC unroll 16
  for (int i = terms - 2; i >= 0; --i) sum = sum * r + broadcast(Exp2<T>::terms[i]);
  return sum * r + broadcast(T(1));
}

// 2^x; zero from `low` down, infinite or at least 2^`high` above it, NaN for NaN.
template <typename T>
ULPGRAD_TILE Vec<T> exp2(Vec<T> x) {
#if ULPGRAD_ISA_LEVEL == 2
  if constexpr (std::is_same_v<T, float>) {
    const __m512 kept = _mm512_max_ps(_mm512_set1_ps(2 * Exp2<T>::low), (__m512)x);  // the second operand if it is NaN
    const __m512 n = _mm512_roundscale_ps(kept, 0);
    return (Vec<T>)_mm512_scalef_ps((__m512)exp2_rest<T>((Vec<T>)(kept - n)), n);
  } else {
    const __m512d kept = _mm512_max_pd(_mm512_set1_pd(2 * Exp2<T>::low), (__m512d)x);
    const __m512d n = _mm512_roundscale_pd(kept, 0);
    return (Vec<T>)_mm512_scalef_pd((__m512d)exp2_rest<T>((Vec<T>)(kept - n)), n);
  }
#else
  using E = Exp2<T>;
  using Bits = Vec<typename E::Bits>;
  const Vec<T> low = broadcast(E::low), high = broadcast(E::high);
  const Vec<T> kept = x > high ? high : (x < low ? low : x);
  const Vec<T> moved = kept + broadcast(E::round), n = moved - broadcast(E::round);
  const Vec<T> y = (Vec<T>)((Bits)exp2_rest<T>(kept - n) + ((Bits)moved << E::mantissa));
  return x <= low ? Vec<T>{} : (x == x ? y : x);
#endif
}

}  // namespace ulpgrad::ULPGRAD_ISA
