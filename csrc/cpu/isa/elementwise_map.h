// How a formula on vectors runs over values. Codes of bfloat16 are taken two vectors at a time: as words of 32 bits
// they hold one value in the upper half, and one that a shift brings there; so results are put back.
#pragma once

#include "rows_math.h"

namespace ulpgrad::ULPGRAD_ISA {

using Words = Vec<uint32_t>;

// Every second value of a run of bfloat16, from the first one on or from the next one.
template <bool upper>
ULPGRAD_INLINE Vec<float> every_second(Vec<uint16_t> codes) {
  const Words x = (Words)codes;
  return (Vec<float>)(upper ? x & 0xFFFF0000u : x << 16);
}

// A position in such runs, as rows_math.h has them; the last `count` values have zeros after them.
template <bool upper>
struct Interleaved {
  int64_t j;
  ULPGRAD_MEMBER Vec<float> operator()(const Bfloat16* p) const {
    return every_second<upper>(load(reinterpret_cast<const uint16_t*>(p + j)));
  }
};

template <bool upper>
struct InterleavedSome {
  int64_t j, count;
  ULPGRAD_MEMBER Vec<float> operator()(const Bfloat16* p) const {
    alignas(kVectorBytes) uint16_t buffer[kLanes<uint16_t>] = {};
    std::memcpy(buffer, p + j, static_cast<size_t>(count) * sizeof(uint16_t));
    return every_second<upper>(load(buffer));
  }
};

// The code of each value in the upper half of its lane.
template <bool exact>
ULPGRAD_INLINE Words upper_codes(Vec<float> x) {
  const Words bits = (Words)x;
  if constexpr (exact) return bits;
  return x != x ? bits | 0x400000u : bits + 0x7FFF + ((bits >> 16) & 1);
}

template <bool exact>
ULPGRAD_INLINE Vec<uint16_t> interleaved(Vec<float> lower, Vec<float> upper) {
  return (Vec<uint16_t>)((upper_codes<exact>(lower) >> 16) | (upper_codes<exact>(upper) & 0xFFFF0000u));
}

// out = f(at) along n values; `exact`: results are values of S, so that nothing is rounded.
template <typename S, bool exact, typename T = Wide<S>, typename F>
ULPGRAD_INLINE void map(int64_t n, S* out, const F& f) {
  int64_t j = 0;
  if constexpr (std::is_same_v<S, Bfloat16>) {
    constexpr int values = kLanes<uint16_t>;
    uint16_t* const codes = reinterpret_cast<uint16_t*>(out);
    for (; j + values <= n; j += values)
      store(codes + j, interleaved<exact>(f(Interleaved<false>{j}), f(Interleaved<true>{j})));
    if (j == n) return;
    alignas(kVectorBytes) uint16_t last[values];
    store(last, interleaved<exact>(f(InterleavedSome<false>{j, n - j}), f(InterleavedSome<true>{j, n - j})));
    std::memcpy(codes + j, last, static_cast<size_t>(n - j) * sizeof(uint16_t));
  } else {
    each<T>(n, [&](const auto& at) { at.put(out, f(at)); });
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
