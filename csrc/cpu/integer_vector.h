// Vectors of 32- and 64-bit integers that wrap, with the shifts and minima that the compiler's vector extension leaves
// out or takes apart.
#pragma once

#ifdef __SSE2__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // in GCC's own header, which names undefined registers so
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include <type_traits>

#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

#ifdef __aarch64__
constexpr bool kMixedBytes = false;
#else
constexpr bool kMixedBytes = true;  // dot products of bytes take signed ones on one side, unsigned ones on the other
#endif

using Ints = Vec<int32_t>;
using Longs = Vec<int64_t>;

template <typename T>
using Unsigned = Vec<std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;

// x + y, which wraps.
template <typename T>
ULPGRAD_INLINE Vec<T> plus(Vec<T> x, Vec<T> y) {
  return (Vec<T>)((Unsigned<T>)x + (Unsigned<T>)y);
}

template <typename T>
ULPGRAD_INLINE Vec<T> minus(Vec<T> x, Vec<T> y) {
  return (Vec<T>)((Unsigned<T>)x - (Unsigned<T>)y);
}

// `start` and a vector's values, added up; wraps.
ULPGRAD_INLINE int32_t wrapping_sum(Ints x, int32_t start = 0) {
  return static_cast<int32_t>(static_cast<uint32_t>(start) + sum<uint32_t>((Vec<uint32_t>)x));
}

#if ULPGRAD_ISA_LEVEL == 2

ULPGRAD_INLINE Ints shift_left(Ints x, int n) { return (Ints)_mm512_sll_epi32((__m512i)x, _mm_cvtsi32_si128(n)); }
ULPGRAD_INLINE Longs shift_left(Longs x, int n) { return (Longs)_mm512_sll_epi64((__m512i)x, _mm_cvtsi32_si128(n)); }
ULPGRAD_INLINE Ints shift_right(Ints x, int n) { return (Ints)_mm512_sra_epi32((__m512i)x, _mm_cvtsi32_si128(n)); }
ULPGRAD_INLINE Longs shift_right(Longs x, int n) { return (Longs)_mm512_sra_epi64((__m512i)x, _mm_cvtsi32_si128(n)); }
ULPGRAD_INLINE Ints clamp(Ints x, Ints low, Ints high) {
  return (Ints)_mm512_min_epi32(_mm512_max_epi32((__m512i)x, (__m512i)low), (__m512i)high);
}
ULPGRAD_INLINE Longs clamp(Longs x, Longs low, Longs high) {
  return (Longs)_mm512_min_epi64(_mm512_max_epi64((__m512i)x, (__m512i)low), (__m512i)high);
}

#elif defined(__SSE2__)

#if ULPGRAD_ISA_LEVEL == 1
#define ULPGRAD_MM(name) _mm256_##name
using Raw = __m256i;
#else
#define ULPGRAD_MM(name) _mm_##name
using Raw = __m128i;
#endif

ULPGRAD_INLINE Ints shift_left(Ints x, int n) { return (Ints)ULPGRAD_MM(sll_epi32)((Raw)x, _mm_cvtsi32_si128(n)); }
ULPGRAD_INLINE Longs shift_left(Longs x, int n) { return (Longs)ULPGRAD_MM(sll_epi64)((Raw)x, _mm_cvtsi32_si128(n)); }
ULPGRAD_INLINE Ints shift_right(Ints x, int n) { return (Ints)ULPGRAD_MM(sra_epi32)((Raw)x, _mm_cvtsi32_si128(n)); }

// There is no arithmetic shift of 64 bits: as unsigned values above the lowest one.
ULPGRAD_INLINE Longs shift_right(Longs x, int n) {
  const Unsigned<int64_t> lowest = broadcast<uint64_t>(uint64_t{1} << 63);
  const Raw moved = ULPGRAD_MM(srl_epi64)((Raw)((Unsigned<int64_t>)x + lowest), _mm_cvtsi32_si128(n));
  return (Longs)((Unsigned<int64_t>)moved - broadcast<uint64_t>((uint64_t{1} << 63) >> n));
}

#undef ULPGRAD_MM

#else

ULPGRAD_INLINE Ints shift_left(Ints x, int n) { return (Ints)((Unsigned<int32_t>)x << n); }
ULPGRAD_INLINE Longs shift_left(Longs x, int n) { return (Longs)((Unsigned<int64_t>)x << n); }

template <typename Vector>
ULPGRAD_INLINE Vector shift_right(Vector x, int n) {
  return x >> n;
}

#endif

#if ULPGRAD_ISA_LEVEL < 2
template <typename Vector>
ULPGRAD_INLINE Vector clamp(Vector x, Vector low, Vector high) {
  const Vector raised = x < low ? low : x;
  return raised > high ? high : raised;
}
#endif

// sums + the products of two pairs of 16-bit values.
ULPGRAD_INLINE Ints plus_products(Ints sums, Ints a, Ints b) {
#if ULPGRAD_ISA_LEVEL == 2
  return plus<int32_t>(sums, (Ints)_mm512_madd_epi16((__m512i)a, (__m512i)b));
#elif ULPGRAD_ISA_LEVEL == 1
  return plus<int32_t>(sums, (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b));
#elif defined(__SSE2__)
  return plus<int32_t>(sums, (Ints)_mm_madd_epi16((__m128i)a, (__m128i)b));
#elif defined(__aarch64__)
  const int16x8_t x = (int16x8_t)a, y = (int16x8_t)b;
  return plus<int32_t>(sums, (Ints)vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y)));
#else
  const auto product = [](Ints x, Ints y) { return x * y; };
  return plus<int32_t>(sums,
                       plus<int32_t>(product(shift_right(shift_left(a, 16), 16), shift_right(shift_left(b, 16), 16)),
                                     product(shift_right(a, 16), shift_right(b, 16))));
#endif
}

// The halves of a vector of 32-bit values as vectors of 64-bit ones.
ULPGRAD_INLINE void widen(Ints x, Longs& first, Longs& second) {
  typedef int32_t Half __attribute__((vector_size(kVectorBytes / 2)));
  Half halves[2];
  __builtin_memcpy(halves, &x, sizeof x);
  first = __builtin_convertvector(halves[0], Longs);
  second = __builtin_convertvector(halves[1], Longs);
}

}  // namespace ulpgrad::ULPGRAD_ISA
