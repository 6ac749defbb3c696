// Small matrix products on operands that are in the cache already: no packing, tiles of 6 x (up to 4 vectors) in
// registers.
#pragma once

#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int kMultiplyRows = 6;
constexpr int kMultiplyVectors = ULPGRAD_ISA_LEVEL == 2 ? 4 : 2;

// C = A B, or += with `add`; a[i * a_row + p * a_col]; rows of B and C are contiguous, n a multiple of 16.
struct Multiply {
  int64_t m, n, k;
  const float* a;
  int64_t a_row, a_col;
  const float* b;
  int64_t b_row;
  float* c;
  int64_t c_row;
};

template <int rows, int vectors, bool add>
ULPGRAD_INLINE void multiply_tile(const Multiply& x, int64_t i0, int64_t j0) {
  using V = Vec<float>;
  constexpr int64_t lanes = kLanes<float>;
  V sums[rows][vectors];
  float* const c = x.c + i0 * x.c_row + j0;
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) sums[i][j] = add ? load(c + i * x.c_row + j * lanes) : V{};
  }
  const float* a[rows];
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i) a[i] = x.a + (i0 + i) * x.a_row;
  const float* b = x.b + j0;
  const int64_t end = x.k * x.a_col;
  for (int64_t p = 0; p < end; p += x.a_col, b += x.b_row) {
    V row[vectors];
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) row[j] = load(b + j * lanes);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      const V value = broadcast(a[i][p]);
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) sums[i][j] += value * row[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < vectors; ++j) store(c + i * x.c_row + j * lanes, sums[i][j]);
  }
}

template <int vectors, bool add, int rows = kMultiplyRows>
static void multiply_rows(const Multiply& x, int64_t i, int64_t j) {
  for (; i + rows <= x.m; i += rows) multiply_tile<rows, vectors, add>(x, i, j);
  if constexpr (rows > 1) {
    if (i < x.m) multiply_rows<vectors, add, rows - 1>(x, i, j);
  }
}

template <bool add>
static void multiply(const Multiply& x) {
  constexpr int64_t wide = kMultiplyVectors * kLanes<float>;
  int64_t j = 0;
  for (; j + wide <= x.n; j += wide) multiply_rows<kMultiplyVectors, add>(x, 0, j);
  for (; j < x.n; j += kLanes<float>) multiply_rows<1, add>(x, 0, j);
}

}  // namespace ulpgrad::ULPGRAD_ISA
