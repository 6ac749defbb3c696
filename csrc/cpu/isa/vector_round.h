// Square roots and whole numbers on vectors: one instruction where the set has it, and the same bits where it has none.
#pragma once

#include "vector_math.h"

namespace ulpgrad::ULPGRAD_ISA::vm {

#if ULPGRAD_ISA_LEVEL == 2
ULPGRAD_INLINE Vec<float> sqrt(Vec<float> x) { return (Vec<float>)_mm512_sqrt_ps((__m512)x); }
ULPGRAD_INLINE Vec<double> sqrt(Vec<double> x) { return (Vec<double>)_mm512_sqrt_pd((__m512d)x); }
ULPGRAD_INLINE Vec<float> rint(Vec<float> x) { return (Vec<float>)_mm512_roundscale_ps((__m512)x, 8); }
ULPGRAD_INLINE Vec<double> rint(Vec<double> x) { return (Vec<double>)_mm512_roundscale_pd((__m512d)x, 8); }
ULPGRAD_INLINE Vec<float> floor(Vec<float> x) { return (Vec<float>)_mm512_roundscale_ps((__m512)x, 9); }
ULPGRAD_INLINE Vec<double> floor(Vec<double> x) { return (Vec<double>)_mm512_roundscale_pd((__m512d)x, 9); }
ULPGRAD_INLINE Vec<float> ceil(Vec<float> x) { return (Vec<float>)_mm512_roundscale_ps((__m512)x, 10); }
ULPGRAD_INLINE Vec<double> ceil(Vec<double> x) { return (Vec<double>)_mm512_roundscale_pd((__m512d)x, 10); }
ULPGRAD_INLINE Vec<float> trunc(Vec<float> x) { return (Vec<float>)_mm512_roundscale_ps((__m512)x, 11); }
ULPGRAD_INLINE Vec<double> trunc(Vec<double> x) { return (Vec<double>)_mm512_roundscale_pd((__m512d)x, 11); }
#elif ULPGRAD_ISA_LEVEL == 1
ULPGRAD_INLINE Vec<float> sqrt(Vec<float> x) { return (Vec<float>)_mm256_sqrt_ps((__m256)x); }
ULPGRAD_INLINE Vec<double> sqrt(Vec<double> x) { return (Vec<double>)_mm256_sqrt_pd((__m256d)x); }
ULPGRAD_INLINE Vec<float> rint(Vec<float> x) { return (Vec<float>)_mm256_round_ps((__m256)x, 8); }
ULPGRAD_INLINE Vec<double> rint(Vec<double> x) { return (Vec<double>)_mm256_round_pd((__m256d)x, 8); }
ULPGRAD_INLINE Vec<float> floor(Vec<float> x) { return (Vec<float>)_mm256_round_ps((__m256)x, 9); }
ULPGRAD_INLINE Vec<double> floor(Vec<double> x) { return (Vec<double>)_mm256_round_pd((__m256d)x, 9); }
ULPGRAD_INLINE Vec<float> ceil(Vec<float> x) { return (Vec<float>)_mm256_round_ps((__m256)x, 10); }
ULPGRAD_INLINE Vec<double> ceil(Vec<double> x) { return (Vec<double>)_mm256_round_pd((__m256d)x, 10); }
ULPGRAD_INLINE Vec<float> trunc(Vec<float> x) { return (Vec<float>)_mm256_round_ps((__m256)x, 11); }
ULPGRAD_INLINE Vec<double> trunc(Vec<double> x) { return (Vec<double>)_mm256_round_pd((__m256d)x, 11); }
#else
template <typename V>
ULPGRAD_INLINE V sqrt(V x) {
  for (size_t l = 0; l < sizeof(V) / sizeof(Scalar<V>); ++l) x[l] = sqrt(x[l]);
  return x;
}

// Adding a number whose last place is 1 rounds; what is as large has no fraction.
template <typename V>
ULPGRAD_INLINE V rint(V x) {
  constexpr Scalar<V> whole = Scalar<V>(typename Of<V>::Bits(1) << Of<V>::mantissa);
  const V size = abs(x);
  return size < whole ? copysign((size + whole) - whole, x) : x;
}

template <typename V>
ULPGRAD_INLINE V floor(V x) {
  const V near = rint(x);
  return near > x ? near - Scalar<V>(1) : near;
}

template <typename V>
ULPGRAD_INLINE V ceil(V x) {
  return -floor(-x);
}

template <typename V>
ULPGRAD_INLINE V trunc(V x) {
  return copysign(floor(abs(x)), x);
}
#endif

}  // namespace ulpgrad::ULPGRAD_ISA::vm
