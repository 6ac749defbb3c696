// The tile kernel: `rows` x (`vectors` vectors) of C stay in registers while k runs; each step loads one row of B's
// panel and broadcasts one column of A's. The tile is as large as the register file allows, for the most FMAs per load.
#pragma once

#include <utility>

#include "gemm_math.h"

namespace ulpgrad::ULPGRAD_ISA {

// Rows of the largest tile; with two vectors each, a row of B and a broadcast value they fill 32 or 16 registers.
constexpr int kTileRows = kManyRegisters ? 14 : 6;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC does not see that the first chunk reads no earlier one

// What a tile reads: panels, or matrices where they stand. Row i of A's panel of step p stands at a + i + p * rows, or
// at a + i * a_row + p * a_step; row p of B's at b + p * b_step. And what it fetches into the L2 cache meanwhile, for
// others: so many bytes a step.
template <typename Packed>
struct TileInput {
  int64_t steps;
  const Packed *a, *b;
  int64_t a_row, a_step, b_step;
  const char* ahead;
  int64_t ahead_step;
};

// C (rows x cols, cols <= the tile's width) = A B, or += with `add`; `in_place`: nothing beyond A or B is read.
template <typename Math, int rows, int vectors, bool in_place>
static void tile(const TileInput<typename Math::Packed>& in, typename Math::Sum* __restrict c, int64_t c_row,
                 int64_t cols, bool add) {
  using Sum = typename Math::Sum;
  using Packed = typename Math::Packed;
  constexpr int lanes = kLanes<Sum>;
  const Packed* __restrict a = in.a, * __restrict b = in.b;
  const char* ahead = in.ahead;
  const int64_t steps = in.steps, b_step = in.b_step, ahead_step = in.ahead_step, last = cols - (vectors - 1) * lanes;
  alignas(kVectorBytes) Sum earlier[rows * vectors * lanes];  // the sum of the chunks before
  for (int64_t left = steps;; left -= Math::chunk) {
    Vec<Sum> sums[rows][vectors] = {};
    if (!in_place && left <= Math::chunk) {  // C, from wherever it is: until it is needed, the last chunk passes
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) __builtin_prefetch(c + i * c_row + v * lanes, 1);
      }
    }
    for (int64_t p = left < Math::chunk ? left : Math::chunk; p > 0; --p) {
      if (!in_place) __builtin_prefetch(ahead, 0, 2), ahead += ahead_step;
      Vec<Packed> row[vectors];
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) {
        row[v] = in_place && v == vectors - 1 ? load_some(b + v * lanes, last) : load(b + v * lanes);
      }
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) {
        const Vec<Packed> value = broadcast(a[in_place ? i * in.a_row : i]);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) Math::multiply_add(sums[i][v], value, row[v]);
      }
      a += in_place ? in.a_step : rows;
      b += b_step;
    }
    if (left < steps) {
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) sums[i][v] += load(earlier + (i * vectors + v) * lanes);
      }
    }
    if (left > Math::chunk) {
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) store(earlier + (i * vectors + v) * lanes, sums[i][v]);
      }
      continue;
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) {
        Sum* to = c + i * c_row + v * lanes;
        const int64_t here = cols - v * lanes;
        if (here >= lanes) {
          store(to, add ? load(to) + sums[i][v] : sums[i][v]);
        } else if (here > 0) {
          store_some(to, add ? load_some(to, here) + sums[i][v] : sums[i][v], here);
        }
      }
    }
    return;
  }
}

#pragma GCC diagnostic pop

template <typename Math>
using Tile = void (*)(const TileInput<typename Math::Packed>& in, typename Math::Sum* c, int64_t c_row, int64_t cols,
                      bool add);

template <typename Math, bool in_place, typename Rows>
struct Tiles;

template <typename Math, bool in_place, int... before>
struct Tiles<Math, in_place, std::integer_sequence<int, before...>> {
  static constexpr Tile<Math> of[][2] = {{tile<Math, before + 1, 1, in_place>, tile<Math, before + 1, 2, in_place>}...};
};

// The tile kernel for 1 <= rows <= kTileRows and 1 or 2 vectors: short tiles do no work on rows that are not there.
template <typename Math, bool in_place = false>
ULPGRAD_INLINE Tile<Math> tile_for(int64_t rows, int vectors) {
  return Tiles<Math, in_place, std::make_integer_sequence<int, kTileRows>>::of[rows - 1][vectors - 1];
}

}  // namespace ulpgrad::ULPGRAD_ISA
