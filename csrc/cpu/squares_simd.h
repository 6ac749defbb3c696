// Squares of values, as many rows as a vector has lanes, turned in registers.
#pragma once

#include <type_traits>

#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

template <typename T>
struct Interleave {
  static constexpr int lanes = kLanes<T>;
  using Index = Vec<std::conditional_t<sizeof(T) == 8, int64_t, int32_t>>;
  Index low, high;
  constexpr Interleave() : low{}, high{} {
    for (int i = 0; i < lanes; ++i) {
      low[i] = i / 2 + i % 2 * lanes;
      high[i] = i / 2 + lanes / 2 + i % 2 * lanes;
    }
  }
};

// A square of values, its rows and columns exchanged: interleaving the first half of the rows with the second,
// log2(lanes) times, leaves each column in one vector.
template <typename T>
ULPGRAD_INLINE void transpose(Vec<T> (&rows)[kLanes<T>]) {
  constexpr int lanes = kLanes<T>;
  const Interleave<T> order;
#pragma GCC unroll 4
  for (int step = 1; step < lanes; step *= 2) {
    Vec<T> next[lanes];
#pragma GCC unroll 8
    for (int i = 0; i < lanes / 2; ++i) {
      next[2 * i] = __builtin_shuffle(rows[i], rows[i + lanes / 2], order.low);
      next[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + lanes / 2], order.high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) rows[i] = next[i];
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
