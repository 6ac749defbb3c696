// Loops over one row, in vectors with a partial one at the end.
#pragma once

#include <limits>
#include <type_traits>

#include "halves_simd.h"

#define ULPGRAD_MEMBER inline __attribute__((always_inline))

namespace ulpgrad::ULPGRAD_ISA {

// One value, rounded to S.
template <typename S>
ULPGRAD_INLINE S narrow(Wide<S> x) {
  if constexpr (std::is_same_v<S, Bfloat16>) {
    return {narrow_bfloat16(x)};
  } else if constexpr (std::is_same_v<S, Float16>) {
    return {narrow_float16(x)};
  } else {
    return x;
  }
}

// A position in a row of T, or of what is computed with as T: `at(p)` loads there, `at.put(p, v)` stores, `at.keep(v)`
// leaves v as it is.
template <typename T>
struct Whole {
  int64_t j;
  template <typename S>
  ULPGRAD_MEMBER Vec<T> operator()(const S* p) const {
    return load_wide(p + j);
  }
  template <typename S>
  ULPGRAD_MEMBER void put(S* p, Vec<T> v) const {
    store_narrow(p + j, v);
  }
  ULPGRAD_MEMBER Vec<T> keep(Vec<T> v, T = 0) const { return v; }
};

// The last `count` values of a row: loads give zeros in the other lanes, `keep` gives `rest` there.
template <typename T>
struct Partial {
  int64_t j, count;
  template <typename S>
  ULPGRAD_MEMBER Vec<T> operator()(const S* p) const {
    return load_wide_some(p + j, count);
  }
  template <typename S>
  ULPGRAD_MEMBER void put(S* p, Vec<T> v) const {
    store_narrow_some(p + j, v, count);
  }
  ULPGRAD_MEMBER Vec<T> keep(Vec<T> v, T rest = 0) const {
    Vec<T> lane;
#pragma GCC unroll 16
    for (int l = 0; l < kLanes<T>; ++l) lane[l] = static_cast<T>(l);
    return lane < static_cast<T>(count) ? v : broadcast(rest);
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
template <typename S, typename T = Wide<S>>
ULPGRAD_INLINE T largest(const S* x, int64_t n) {
  constexpr T lowest = -std::numeric_limits<T>::infinity();
  Vec<T> a = broadcast(T(0)) + lowest, b = a;
  int64_t j = 0;
  for (; j + 2 * kLanes<T> <= n; j += 2 * kLanes<T>) {
    const Vec<T> u = load_wide(x + j), v = load_wide(x + j + kLanes<T>);
    a = u > a ? u : a;
    b = v > b ? v : b;
  }
  each<T>(n - j, [&](const auto& at) {
    const Vec<T> v = at.keep(at(x + j), lowest);
    a = v > a ? v : a;
  });
  a = b > a ? b : a;
  alignas(kVectorBytes) T lane[kLanes<T>];
  store(lane, a);
  for (int half = kLanes<T> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] = lane[i + half] > lane[i] ? lane[i + half] : lane[i];
  return lane[0];
}

}  // namespace ulpgrad::ULPGRAD_ISA
