// The tile kernel: `rows` x (`vectors` vectors) of C stay in registers while k runs; each step loads one row of B's
// panel and broadcasts one column of A's. The tile is as large as the register file allows, for the most FMAs per load.
#pragma once

#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

// Rows of the largest tile; with two vectors each, a row of B and a broadcast value they fill 32 or 16 registers.
constexpr int kTileRows = ULPGRAD_ISA_LEVEL == 2 ? 14 : 6;

// C (rows x cols, cols <= the tile's width) = A B, or += with `add`. Row p of B's panel stands at b + p * b_step.
template <typename T, int rows, int vectors>
static void tile(int64_t k, const T* __restrict a, const T* __restrict b, int64_t b_step, T* __restrict c,
                 int64_t c_row, int64_t cols, bool add) {
  constexpr int lanes = kLanes<T>;
  Vec<T> sums[rows][vectors] = {};
  for (int64_t p = 0; p < k; ++p) {
    Vec<T> row[vectors];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) row[v] = load(b + v * lanes);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const Vec<T> value = broadcast(a[i]);
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) sums[i][v] += value * row[v];
    }
    a += rows;
    b += b_step;
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      T* to = c + i * c_row + v * lanes;
      const int64_t left = cols - v * lanes;
      if (left >= lanes) {
        store(to, add ? load(to) + sums[i][v] : sums[i][v]);
      } else if (left > 0) {
        store_some(to, add ? load_some(to, left) + sums[i][v] : sums[i][v], left);
      }
    }
  }
}

template <typename T>
using Tile = void (*)(int64_t k, const T* a, const T* b, int64_t b_step, T* c, int64_t c_row, int64_t cols, bool add);

// The tile kernel for 1 <= rows <= kTileRows and 1 or 2 vectors: short tiles do no work on rows that are not there.
template <typename T, int rows = kTileRows>
static Tile<T> tile_for(int64_t wanted, int vectors) {
  if constexpr (rows > 1) {
    if (wanted < rows) return tile_for<T, rows - 1>(wanted, vectors);
  }
  return vectors == 1 ? tile<T, rows, 1> : tile<T, rows, 2>;
}

}  // namespace ulpgrad::ULPGRAD_ISA
