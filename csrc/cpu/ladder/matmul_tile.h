// The loop at the heart of all rungs from `tile` on: kRows x 2 vectors of C stay in registers while k runs. The rungs
// differ in where its operands stand, which is why it asks for their strides.
#pragma once

#include <algorithm>

#include "matmul.h"
#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

// With two vectors a row, a row of B and a broadcast value of A, these rows fill the 32 or 16 registers.
constexpr int kRows = kManyRegisters ? 14 : 6;
constexpr int64_t kWidth = 2 * kLanes<float>;
static_assert(kRows <= kLadderHeight && kWidth <= kLadderWidth && kLadderBlockM % kRows == 0);

// c[rows][cols] = or += the tile's a[kRows][k] b[k][kWidth], of which only `rows` and `cols` are there in C.
ULPGRAD_INLINE void tile(int64_t k, const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_row,
                         float* c, int64_t c_row, int64_t rows, int64_t cols, bool add) {
  constexpr int lanes = kLanes<float>;
  Vec<float> sums[kRows][2] = {};
  for (int64_t p = 0; p < k; ++p) {
    const Vec<float> left = load(b + p * b_row), right = load(b + p * b_row + lanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const Vec<float> value = broadcast(a[i * a_row + p * a_step]);
      sums[i][0] += value * left;
      sums[i][1] += value * right;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const int64_t count = i < rows ? std::clamp<int64_t>(cols - v * lanes, 0, lanes) : 0;
      float* to = c + i * c_row + v * lanes;
      if (count == lanes) {
        store(to, add ? load(to) + sums[i][v] : sums[i][v]);
      } else if (count > 0) {
        store_some(to, add ? load_some(to, count) + sums[i][v] : sums[i][v], count);
      }
    }
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
