// Vectors of the instruction set a file in isa/ is compiled for, by the compiler's vector extension: +, *, comparisons
// and mask ? a : b work on them, and a * b + c contracts to one FMA.
#pragma once

#include <cstdint>
#include <cstring>

#include "isa.h"

#if ULPGRAD_ISA_LEVEL >= 1
#include <immintrin.h>
#endif

namespace ulpgrad::ULPGRAD_ISA {

constexpr int kVectorBytes = ULPGRAD_ISA_LEVEL == 2 ? 64 : ULPGRAD_ISA_LEVEL == 1 ? 32 : 16;

template <typename T>
struct Simd {
  typedef T type __attribute__((vector_size(kVectorBytes)));
  typedef T unaligned __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
  static constexpr int lanes = kVectorBytes / static_cast<int>(sizeof(T));
};

template <typename T>
using Vec = typename Simd<T>::type;

template <typename T>
constexpr int kLanes = Simd<T>::lanes;

template <typename T>
ULPGRAD_INLINE Vec<T> load(const T* p) {
  return *reinterpret_cast<const typename Simd<T>::unaligned*>(p);
}

template <typename T>
ULPGRAD_INLINE void store(T* p, Vec<T> v) {
  *reinterpret_cast<typename Simd<T>::unaligned*>(p) = v;
}

template <typename T>
ULPGRAD_INLINE Vec<T> broadcast(T x) {
  return x - Vec<T>{};
}

// The first `count` values, zeros after them.
template <typename T>
ULPGRAD_INLINE Vec<T> load_some(const T* p, int64_t count) {
  alignas(kVectorBytes) T buffer[kLanes<T>] = {};
  std::memcpy(buffer, p, static_cast<size_t>(count) * sizeof(T));
  return load(buffer);
}

template <typename T>
ULPGRAD_INLINE void store_some(T* p, Vec<T> v, int64_t count) {
  alignas(kVectorBytes) T buffer[kLanes<T>];
  store(buffer, v);
  std::memcpy(p, buffer, static_cast<size_t>(count) * sizeof(T));
}

// The sum of a vector's values, in a fixed order.
template <typename T>
ULPGRAD_INLINE T sum(Vec<T> v) {
  alignas(kVectorBytes) T x[kLanes<T>];
  store(x, v);
  for (int half = kLanes<T> / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  return x[0];
}

}  // namespace ulpgrad::ULPGRAD_ISA
