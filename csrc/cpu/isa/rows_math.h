// Loops over one row, in vectors with a partial one at the end, and the exponential that softmax needs.
#pragma once

#include <limits>

#include "simd.h"

#define ULPGRAD_MEMBER inline __attribute__((always_inline))

namespace ulpgrad::ULPGRAD_ISA {

// A position in a row: `at(p)` loads there, `at.put(p, v)` stores, `at.keep(v)` leaves v as it is.
template <typename T>
struct Whole {
  int64_t j;
  ULPGRAD_MEMBER Vec<T> operator()(const T* p, T = 0) const { return load(p + j); }
  ULPGRAD_MEMBER void put(T* p, Vec<T> v) const { store(p + j, v); }
  ULPGRAD_MEMBER Vec<T> keep(Vec<T> v) const { return v; }
};

// The last `count` values of a row: loads give `rest` in the other lanes, `keep` gives zeros there.
template <typename T>
struct Partial {
  int64_t j, count;
#if ULPGRAD_ISA_LEVEL == 2
  static ULPGRAD_MEMBER __m512 masked(__m512 rest, const float* p, int64_t n) {
    return _mm512_mask_loadu_ps(rest, static_cast<__mmask16>((1u << n) - 1), p);
  }
  static ULPGRAD_MEMBER __m512d masked(__m512d rest, const double* p, int64_t n) {
    return _mm512_mask_loadu_pd(rest, static_cast<__mmask8>((1u << n) - 1), p);
  }
  static ULPGRAD_MEMBER void put_masked(float* p, __m512 v, int64_t n) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
  }
  static ULPGRAD_MEMBER void put_masked(double* p, __m512d v, int64_t n) {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1), v);
  }
  ULPGRAD_MEMBER Vec<T> operator()(const T* p, T rest = 0) const { return masked(broadcast(rest), p + j, count); }
  ULPGRAD_MEMBER void put(T* p, Vec<T> v) const { put_masked(p + j, v, count); }
#else
  ULPGRAD_MEMBER Vec<T> operator()(const T* p, T rest = 0) const {
    alignas(kVectorBytes) T buffer[kLanes<T>];
    store(buffer, broadcast(rest));
    std::memcpy(buffer, p + j, static_cast<size_t>(count) * sizeof(T));
    return load(buffer);
  }
  ULPGRAD_MEMBER void put(T* p, Vec<T> v) const { store_some(p + j, v, count); }
#endif
  ULPGRAD_MEMBER Vec<T> keep(Vec<T> v) const {
    alignas(kVectorBytes) T buffer[kLanes<T>];
    store(buffer, v);
    return (*this)(buffer - j);
  }
};

// Calls f(at) along a row of n values.
template <typename T, typename F>
ULPGRAD_INLINE void each(int64_t n, const F& f) {
  int64_t j = 0;
  for (; j + kLanes<T> <= n; j += kLanes<T>) f(Whole<T>{j});
  if (j < n) f(Partial<T>{j, n - j});
}

// Calls f(at, acc) along a row, where f adds to acc[0], ..., acc[count - 1]; out gets the sums over all lanes.
// Two or four sets of accumulators take turns, since an addition takes longer than a load.
template <typename T, int count, typename F>
ULPGRAD_INLINE void sums(int64_t n, T (&out)[count], const F& f) {
  constexpr int sets = count == 1 ? 4 : 2, lanes = kLanes<T>;
  Vec<T> acc[sets][count] = {};
  int64_t j = 0;
  for (; j + sets * lanes <= n; j += sets * lanes) {
#pragma GCC unroll 4
    for (int k = 0; k < sets; ++k) f(Whole<T>{j + k * lanes}, acc[k]);
  }
  for (; j + lanes <= n; j += lanes) f(Whole<T>{j}, acc[0]);
  if (j < n) f(Partial<T>{j, n - j}, acc[1]);
  for (int i = 0; i < count; ++i) {
    Vec<T> total = acc[0][i] + acc[1][i];
    if (sets == 4) total += acc[2 % sets][i] + acc[3 % sets][i];
    out[i] = sum<T>(total);
  }
}

template <typename T, typename F>
ULPGRAD_INLINE T sum_of(int64_t n, const F& f) {
  T out[1];
  sums<T>(n, out, [&](const auto& at, Vec<T>* acc) { acc[0] += at.keep(f(at)); });
  return out[0];
}

// The largest value of a row; NaNs are passed over.
template <typename T>
ULPGRAD_INLINE T largest(const T* x, int64_t n) {
  constexpr T lowest = -std::numeric_limits<T>::infinity();
  Vec<T> a = broadcast(T(0)) + lowest, b = a;
  int64_t j = 0;
  for (; j + 2 * kLanes<T> <= n; j += 2 * kLanes<T>) {
    const Vec<T> u = load(x + j), v = load(x + j + kLanes<T>);
    a = u > a ? u : a;
    b = v > b ? v : b;
  }
  each<T>(n - j, [&](const auto& at) {
    const Vec<T> v = at(x + j, lowest);
    a = v > a ? v : a;
  });
  a = b > a ? b : a;
  alignas(kVectorBytes) T lane[kLanes<T>];
  store(lane, a);
  for (int half = kLanes<T> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] = lane[i + half] > lane[i] ? lane[i + half] : lane[i];
  return lane[0];
}

template <typename T>
struct ExpTraits;

template <>
struct ExpTraits<float> {
  typedef int32_t Ints __attribute__((vector_size(kVectorBytes)));
  static constexpr int terms = 7, mantissa = 23, bias = 127;       // Taylor's remainder: 5e-9 at ln(2) / 2
  static constexpr float lowest = -104.0f, rounder = 12582912.0f;  // 1.5 * 2^23: adding it leaves no fraction bits
  static constexpr float log2_high = 0.693359375f, log2_low = -2.12194440e-4f;
};

template <>
struct ExpTraits<double> {
  typedef int64_t Ints __attribute__((vector_size(kVectorBytes)));
  static constexpr int terms = 13, mantissa = 52, bias = 1023;            // remainder: 4e-18
  static constexpr double lowest = -746.0, rounder = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double log2_high = 0.693147180369123816490, log2_low = 1.90821492927058770002e-10;
};

// 2^n for a vector of whole numbers: adding `rounder` puts n into the lowest bits.
template <typename T>
ULPGRAD_INLINE Vec<T> power_of_two(Vec<T> n) {
  using Traits = ExpTraits<T>;
  typedef typename Traits::Ints Ints;
  return (Vec<T>)(((Ints)(n + Traits::rounder) + Traits::bias) << Traits::mantissa);  // the casts keep the bits
}

// e^x for x that is at most about zero, as after the maximum is taken off: 2^n e^r with |r| <= ln(2) / 2. -inf gives 0;
// 2^n is applied in two steps, so that results may be subnormal.
template <typename T>
ULPGRAD_INLINE Vec<T> exp_of_shifted(Vec<T> x) {
  using Traits = ExpTraits<T>;
  x = x < Traits::lowest ? broadcast(Traits::lowest) : x;
  const Vec<T> n = (x * T(1.44269504088896340736) + Traits::rounder) - Traits::rounder;
  const Vec<T> r = (x - n * Traits::log2_high) - n * Traits::log2_low;
  T coefficient[Traits::terms + 1] = {1};
#pragma GCC unroll 16
  for (int k = 1; k <= Traits::terms; ++k) coefficient[k] = coefficient[k - 1] / T(k);
  Vec<T> y = broadcast(coefficient[Traits::terms]);
#pragma GCC unroll 16
  for (int k = Traits::terms - 1; k >= 0; --k) y = y * r + coefficient[k];
  const Vec<T> half = (n * T(0.5) + Traits::rounder) - Traits::rounder;
  return y * power_of_two<T>(half) * power_of_two<T>(n - half);
}

}  // namespace ulpgrad::ULPGRAD_ISA
