// What a product is computed with: the type of its values, of its sums, and of what panels hold.
//
// Singles: panels hold A's and B's values one by one, as wide as the sums. Pairs: panels hold two neighbours along k of
// bfloat16 in one word, as VDPBF16PS takes them.
#pragma once

#include "halves_simd.h"

namespace ulpgrad::ULPGRAD_ISA {

// Steps of k whose products are summed in one go: the error grows with the square root of this number instead of that
// of k. Ending a chain takes as long as four steps. Results of 16 bits are rounded more coarsely than long ones err.
constexpr int64_t kChunk = 128, kLongChunk = 1024;

template <typename T>
struct Singles {
  using Value = T;
  using Sum = Wide<T>;
  using Packed = Sum;
  static constexpr int depth = 1;  // values along k in one packed one
  static constexpr int64_t chunk = sizeof(T) == 2 ? kLongChunk : kChunk;

  ULPGRAD_INLINE void multiply_add(Vec<Sum>& sum, Vec<Packed> a, Vec<Packed> b) { sum += a * b; }
};

#if ULPGRAD_ISA_LEVEL == 2

struct WidePairs {
  using Value = Bfloat16;
  using Sum = float;
  using Packed = uint32_t;
  static constexpr int depth = 2;
  static constexpr int64_t chunk = kLongChunk;

  ULPGRAD_INLINE Vec<float> even(Vec<uint32_t> x) { return (Vec<float>)(x << 16); }
  ULPGRAD_INLINE Vec<float> odd(Vec<uint32_t> x) { return (Vec<float>)(x & 0xFFFF0000u); }
  ULPGRAD_INLINE void multiply_add(Vec<float>& sum, Vec<uint32_t> a, Vec<uint32_t> b) {
    sum += even(a) * even(b);
    sum += odd(a) * odd(b);
  }
};

// Written as assembly, since functions compiled for AVX512_BF16 could not share the tile's template with the others.
struct Pairs : WidePairs {
  using Careful = WidePairs;  // for what VDPBF16PS takes for zeros

  ULPGRAD_INLINE void multiply_add(Vec<float>& sum, Vec<uint32_t> a, Vec<uint32_t> b) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  }
};

#endif

}  // namespace ulpgrad::ULPGRAD_ISA
