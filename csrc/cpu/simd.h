// Vectors of the instruction set a file in isa/ is compiled for, by the compiler's vector extension: +, *, comparisons
// and mask ? a : b work on them, and a * b + c contracts to one FMA.
#pragma once

#include <cstdint>
#include <cstring>

#include "isa.h"

#if ULPGRAD_ISA_LEVEL >= 1
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC's own header, which names undefined registers so
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

namespace ulpgrad::ULPGRAD_ISA {

constexpr int kVectorBytes = ULPGRAD_ISA_LEVEL == 2 ? 64 : ULPGRAD_ISA_LEVEL == 1 ? 32 : 16;

// Whether there are 32 vector registers, and not 16: room for tiles twice as high.
#ifdef __aarch64__
constexpr bool kManyRegisters = true;
#else
constexpr bool kManyRegisters = ULPGRAD_ISA_LEVEL == 2;
#endif

template <typename T, int bytes>
struct Bytes {
  typedef T type __attribute__((vector_size(bytes)));
};

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

#if ULPGRAD_ISA_LEVEL == 1
// All bits set in the first `count` lanes of 4 or 8 bytes.
ULPGRAD_INLINE __m256i first_words(int64_t count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
ULPGRAD_INLINE __m256i first_long_words(int64_t count) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
}
#endif

// The first `count` values (0 to all of them), zeros after them.
template <typename T>
ULPGRAD_INLINE Vec<T> load_some(const T* p, int64_t count) {
#if ULPGRAD_ISA_LEVEL == 2
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_maskz_loadu_epi32(static_cast<__mmask16>((1u << count) - 1), p);
  if constexpr (sizeof(T) == 8) return (Vec<T>)_mm512_maskz_loadu_epi64(static_cast<__mmask8>((1u << count) - 1), p);
#elif ULPGRAD_ISA_LEVEL == 1
  if constexpr (sizeof(T) == 4)
    return (Vec<T>)_mm256_maskload_epi32(reinterpret_cast<const int*>(p), first_words(count));
  if constexpr (sizeof(T) == 8)
    return (Vec<T>)_mm256_maskload_epi64(reinterpret_cast<const long long*>(p), first_long_words(count));
#endif
  alignas(kVectorBytes) T buffer[kLanes<T>] = {};
  std::memcpy(buffer, p, static_cast<size_t>(count) * sizeof(T));
  return load(buffer);
}

template <typename T>
ULPGRAD_INLINE void store_some(T* p, Vec<T> v, int64_t count) {
#if ULPGRAD_ISA_LEVEL == 2
  if constexpr (sizeof(T) == 4) {
    return _mm512_mask_storeu_epi32(p, static_cast<__mmask16>((1u << count) - 1), (__m512i)v);
  } else if constexpr (sizeof(T) == 8) {
    return _mm512_mask_storeu_epi64(p, static_cast<__mmask8>((1u << count) - 1), (__m512i)v);
  }
#elif ULPGRAD_ISA_LEVEL == 1
  if constexpr (sizeof(T) == 4) {
    return _mm256_maskstore_epi32(reinterpret_cast<int*>(p), first_words(count), (__m256i)v);
  } else if constexpr (sizeof(T) == 8) {
    return _mm256_maskstore_epi64(reinterpret_cast<long long*>(p), first_long_words(count), (__m256i)v);
  }
#endif
  alignas(kVectorBytes) T buffer[kLanes<T>];
  store(buffer, v);
  std::memcpy(p, buffer, static_cast<size_t>(count) * sizeof(T));
}

// The sum of a vector's values, in a fixed order: its upper half is added to its lower one until one value is left.
// (By reference: with a copy, GCC keeps the caller's arrays of vectors in memory.)
template <typename T, int bytes = kVectorBytes>
ULPGRAD_INLINE T sum(const typename Bytes<T, bytes>::type& v) {
  if constexpr (bytes == sizeof(T)) {
    return v[0];
  } else {
    typename Bytes<T, bytes / 2>::type low, high;
    std::memcpy(&low, &v, bytes / 2);
    std::memcpy(&high, reinterpret_cast<const char*>(&v) + bytes / 2, bytes / 2);
    return sum<T, bytes / 2>(low + high);
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
