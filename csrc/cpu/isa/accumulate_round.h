// Additions on vectors, rounded once to a format with few digits.
//
// The sum is first rounded to odd: cut off, with the last bit set where anything was lost. Rounding that again, to at
// least two bits less, is as good as rounding the exact sum once (Boldo and Melquiond, "Emulation of FMA and correctly
// rounded sums", 2008). Products of float32 values are exact in float64; AVX-512 multiplies and adds them in float32
// lanes, rounding once down and once up: of two neighbours one is odd.
#pragma once

#include <limits>

#include "accumulate.h"
#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

template <typename T>
struct Layout;

template <>
struct Layout<double> {
  using Integer = int64_t;
  static constexpr int mantissa = 52, bias = 1023;
};

template <>
struct Layout<float> {
  using Integer = int32_t;
  static constexpr int mantissa = 23, bias = 127;
};

template <typename T>
using Code = Vec<typename Layout<T>::Integer>;

#if ULPGRAD_ISA_LEVEL == 2

constexpr int kDown = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC, kUp = _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC;

ULPGRAD_INLINE Vec<double> odd(__m512d down, __m512d up) {
  const __mmask8 is_odd = _mm512_test_epi64_mask(_mm512_castpd_si512(down), _mm512_set1_epi64(1));
  return (Vec<double>)_mm512_mask_mov_pd(up, is_odd, down);
}

ULPGRAD_INLINE Vec<float> odd(__m512 down, __m512 up) {
  const __mmask16 is_odd = _mm512_test_epi32_mask(_mm512_castps_si512(down), _mm512_set1_epi32(1));
  return (Vec<float>)_mm512_mask_mov_ps(up, is_odd, down);
}

ULPGRAD_INLINE Vec<double> add_to_odd(Vec<double> x, Vec<double> y) {
  return odd(_mm512_maskz_add_round_pd(0xFF, x, y, kDown), _mm512_maskz_add_round_pd(0xFF, x, y, kUp));
}

ULPGRAD_INLINE Vec<float> add_to_odd(Vec<float> x, Vec<float> y) {
  return odd(_mm512_maskz_add_round_ps(0xFFFF, x, y, kDown), _mm512_maskz_add_round_ps(0xFFFF, x, y, kUp));
}

ULPGRAD_INLINE Vec<float> multiply_add_to_odd(Vec<float> sum, Vec<float> a, Vec<float> b) {
  return odd(_mm512_fmadd_round_ps(a, b, sum, kDown), _mm512_fmadd_round_ps(a, b, sum, kUp));
}

#else

// What the rounded sum lost is known exactly (Knuth's TwoSum); at infinity it is NaN, and nothing is lost.
ULPGRAD_INLINE Vec<double> add_to_odd(Vec<double> x, Vec<double> y) {
  const Vec<double> sum = x + y, part = sum - x, lost = (x - (sum - part)) + (y - part);
  const Code<double> code = (Code<double>)sum;
  const Code<double> beyond = (code ^ (Code<double>)lost) >> 63;  // -1 where the sum was rounded away from zero
  const Vec<uint64_t> odd = ((Vec<uint64_t>)code + (Vec<uint64_t>)beyond) | 1;  // of -0, which is not taken, it wraps
  return (lost < 0.0) | (lost > 0.0) ? (Vec<double>)odd : sum;
}

#endif

ULPGRAD_INLINE Vec<double> multiply_add_to_odd(Vec<double> sum, Vec<double> a, Vec<double> b) {
  return add_to_odd(sum, a * b);
}

// A format's values between two powers of two are whole multiples of one unit. Adding 2^s, whose last place is that
// unit, and taking it off again rounds to it; below the normal range the unit stays the smallest one.
template <typename T>
struct Grid {
  using V = Vec<T>;
  using I = Code<T>;
  using Integer = typename Layout<T>::Integer;
  static constexpr int kMantissa = Layout<T>::mantissa;
  static constexpr Integer kSign = std::numeric_limits<Integer>::min();
  static constexpr Integer kExponent = Integer(2 * Layout<T>::bias + 1) << kMantissa;

  I lowest, highest, shift;
  V max, beyond;

  explicit Grid(const AccumulatorFormat& f)
      : lowest(code(f.min_exponent + Layout<T>::bias)),
        highest(code(f.max_exponent + 1 + Layout<T>::bias)),
        shift(code(kMantissa - f.mantissa_bits)),
        max(broadcast(static_cast<T>(f.max))),
        beyond(broadcast(static_cast<T>(f.beyond))) {}

  // A number in the place of the exponent.
  static I code(int exponent) { return broadcast(static_cast<Integer>(Integer(exponent) << kMantissa)); }

  // The power of two below a magnitude, as a code, within the format's range.
  I exponent(I magnitude) const {
    I e = magnitude & kExponent;
    e = e < lowest ? lowest : e;
    return e > highest ? highest : e;
  }

  V finish(V magnitude, I sign) const {
    magnitude = magnitude > max ? beyond : magnitude;
    return (V)((I)magnitude | sign);
  }
};

struct NoWord {};

// Round to nearest even. Needs two bits more in T than in the format, and room for 2^s.
template <typename Lane>
struct Nearest {
  using T = Lane;
  using V = Vec<T>;
  using I = Code<T>;
  static constexpr bool kRandom = false;
  Grid<T> grid;

  explicit Nearest(const Accumulation& how) : grid(how.format) {}

  V round(V x) const {
    const I bits = (I)x, sign = bits & Grid<T>::kSign, magnitude = bits & ~Grid<T>::kSign;
    const V big = (V)(grid.exponent(magnitude) + grid.shift);
    return grid.finish(((V)magnitude + big) - big, sign);
  }
  V multiply_add(V sum, V a, V b, NoWord) const { return round(multiply_add_to_odd(sum, a, b)); }
  V add(V sum, V x, NoWord) const { return round(add_to_odd(sum, x)); }
};

#if ULPGRAD_ISA_LEVEL == 2

// Round to nearest even to a format with the exponents of float32, whose codes are the upper part of its own.
struct Aligned {
  using T = float;
  using V = Vec<float>;
  using I = Code<float>;
  static constexpr bool kRandom = false;
  int drop;
  I almost_half, max, beyond;

  explicit Aligned(const Accumulation& how)
      : drop(23 - how.format.mantissa_bits),
        almost_half(broadcast((int32_t{1} << (drop - 1)) - 1)),
        max((I)broadcast(static_cast<float>(how.format.max))),
        beyond((I)broadcast(static_cast<float>(how.format.beyond))) {}

  V round(V x) const {
    const I bits = (I)x, sign = bits & Grid<float>::kSign, magnitude = bits & ~Grid<float>::kSign;
    I rounded = ((magnitude + almost_half + ((magnitude >> drop) & 1)) >> drop) << drop;
    rounded = rounded > max ? beyond : rounded;
    return x == x ? (V)(rounded | sign) : x;
  }
  V multiply_add(V sum, V a, V b, NoWord) const { return round(multiply_add_to_odd(sum, a, b)); }
  V add(V sum, V x, NoWord) const { return round(add_to_odd(sum, x)); }
};

#endif

// The accumulator is as wide as the lanes.
template <typename Lane>
struct Plain {
  using T = Lane;
  using V = Vec<T>;
  static constexpr bool kRandom = false;

  explicit Plain(const Accumulation&) {}

  V multiply_add(V sum, V a, V b, NoWord) const {
#if ULPGRAD_ISA_LEVEL == 2
    if constexpr (sizeof(T) == 4) return (V)_mm512_fmadd_ps(a, b, sum);
#endif
    return sum + a * b;
  }
  V add(V sum, V x, NoWord) const { return sum + x; }
};

// Stochastic: of the sum in units of the last place, the fraction is first rounded to random_bits bits, to nearest
// even; the magnitude goes up where fraction and random word reach 1 together.
struct Stochastic {
  using T = double;
  using V = Vec<double>;
  using I = Code<double>;
  static constexpr bool kRandom = true;
  Grid<double> grid;
  I unit, bits;
  int surplus;

  explicit Stochastic(const Accumulation& how)
      : grid(how.format),
        unit(Grid<double>::code(how.format.mantissa_bits)),
        bits(Grid<double>::code(how.random_bits)),
        surplus(32 - how.random_bits) {}

  V round(V x, I word) const {
    const I code = (I)x, sign = code & Grid<double>::kSign, magnitude = code & ~Grid<double>::kSign;
    const I e = grid.exponent(magnitude);
    const V big = (V)(e + grid.shift), fine = (V)(e + grid.shift - bits);
    const V random = (V)((word >> surplus) | 0x4330000000000000) - 0x1p52;  // as a double
    const V raised = (((V)magnitude + fine) - fine) + random * (V)(e - unit - bits);
    const V near = (raised + big) - big;
    return grid.finish(near > raised ? near - (V)(e - unit) : near, sign);
  }
  V multiply_add(V sum, V a, V b, I word) const { return round(multiply_add_to_odd(sum, a, b), word); }
  V add(V sum, V x, I word) const { return round(add_to_odd(sum, x), word); }
};

}  // namespace ulpgrad::ULPGRAD_ISA
