// 2^x of vectors, for weights: scores are kept in units of log2, so that nothing is multiplied but by the polynomial.
#pragma once

#include <type_traits>

#include "attention_multiply.h"

namespace ulpgrad::ULPGRAD_ISA {

// The polynomial (2^r - 1) / r on |r| <= 1/2, interpolated in Chebyshev nodes.
template <typename T, bool exact>
struct Exp2;

template <>  // to 2^-26
struct Exp2<float, true> {
  static constexpr float terms[] = {0.6931471824645996f,   0.24022650718688965f,   0.055503569543361664f,
                                    0.009618083015084267f, 0.0013390863314270973f, 0.00015453163359779865f};
};

template <>  // to 2^-17
struct Exp2<float, false> {
  static constexpr float terms[] = {0.6931367516517639f, 0.24022530019283295f, 0.05583828315138817f,
                                    0.009656710550189018f};
};

template <>  // to 2^-55
struct Exp2<double, true> {
  static constexpr double terms[] = {0.6931471805599453,    0.24022650695910097,   0.0555041086648216,
                                     0.009618129107606888,  0.0013333558146416936, 0.0001540353044173605,
                                     1.525273382983612e-05, 1.321544258792169e-06, 1.0178062445845774e-07,
                                     7.072585949269223e-09, 4.4549605981865186e-10};
};

template <typename T, bool exact>
ULPGRAD_TILE Vec<T> exp2_rest(Vec<T> r) {
  constexpr int terms = sizeof(Exp2<T, exact>::terms) / sizeof(T);
  Vec<T> sum = broadcast(Exp2<T, exact>::terms[terms - 1]);
#pragma GCC unroll 16
  for (int i = terms - 2; i >= 0; --i) sum = sum * r + broadcast(Exp2<T, exact>::terms[i]);
  return sum * r + broadcast(T(1));
}

#if ULPGRAD_ISA_LEVEL == 2

ULPGRAD_INLINE Vec<float> nearest(Vec<float> x) { return (Vec<float>)_mm512_roundscale_ps((__m512)x, 0); }
ULPGRAD_INLINE Vec<double> nearest(Vec<double> x) { return (Vec<double>)_mm512_roundscale_pd((__m512d)x, 0); }

// y 2^n, or 0 where x is below `low`.
ULPGRAD_INLINE Vec<float> scaled(Vec<float> y, Vec<float> n, Vec<float> x, float low) {
  const __mmask16 kept = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(low), _CMP_NLT_UQ);
  return (Vec<float>)_mm512_maskz_scalef_ps(kept, (__m512)y, (__m512)n);
}
ULPGRAD_INLINE Vec<double> scaled(Vec<double> y, Vec<double> n, Vec<double> x, double low) {
  const __mmask8 kept = _mm512_cmp_pd_mask((__m512d)x, _mm512_set1_pd(low), _CMP_NLT_UQ);
  return (Vec<double>)_mm512_maskz_scalef_pd(kept, (__m512d)y, (__m512d)n);
}

#else

template <typename V>
ULPGRAD_INLINE V nearest(V x) {  // below 2^22, or 2^51
  constexpr bool is_float = sizeof(x[0]) == 4;
  const V round = (is_float ? 0x1.8p23f : 0x1.8p52) - V{};
  return (x + round) - round;
}

template <typename V, typename T>
ULPGRAD_INLINE V scaled(V y, V n, V x, T low) {
  constexpr bool is_float = sizeof(T) == 4;
  using Bits = std::conditional_t<is_float, uint32_t, uint64_t>;
  const V moved = n + broadcast(T(is_float ? 0x1.8p23 : 0x1.8p52));
  const V raised = (V)((Vec<Bits>)y + ((Vec<Bits>)moved << (is_float ? 23 : 52)));
  return x <= broadcast(low) ? V{} : (x == x ? raised : x);
}

#endif

// 2^(s factor - shift - rest); zero far below 1, large or infinite far above it, NaN for NaN. Where it is exact, what
// is left of the exponent is computed from s once more, without the rounding of a large one.
template <typename T, bool exact>
ULPGRAD_TILE Vec<T> exp2(Vec<T> s, Vec<T> factor, Vec<T> shift, Vec<T> rest = Vec<T>{}) {
  constexpr T low = sizeof(T) == 4 ? -126 : -1022, high = 127;
  const Vec<T> x = s * factor - shift;
  const Vec<T> n = nearest(ULPGRAD_ISA_LEVEL == 2 ? x : (x > broadcast(high) ? broadcast(high) : x));
  Vec<T> r = exact ? (s * factor - (shift + n)) - rest : x - n;
  if (ULPGRAD_ISA_LEVEL != 2) r = r > broadcast(T(0.75)) ? broadcast(T(0.75)) : r;  // else the exponent may run over
  return scaled(exp2_rest<T, exact>(r), n, x, low);
}

}  // namespace ulpgrad::ULPGRAD_ISA
