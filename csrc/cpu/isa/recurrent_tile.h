// A step's product: rows of a state times packed weights, a panel of columns at a time, and how rows and columns are
// shared out.
#pragma once

#include <algorithm>

#include "recurrent.h"
#include "simd.h"
#include "threads.h"
#include "vector_math.h"

namespace ulpgrad::ULPGRAD_ISA {

// Rows of a tile, so that its sums leave registers for a row of the panel and a broadcast value.
template <int vectors>
constexpr int kMostRows = (kManyRegisters ? 24 : 12) / vectors;

constexpr int64_t kRowGrain = 8;                  // batch rows that are worth a thread
constexpr int64_t kStepGrain = int64_t{1} << 18;  // multiply-adds of a step that are worth waiting for each other

// out[rows][vectors] = panel[0] + a[rows][k] panel[1 ...]
template <typename T, int vectors, int rows>
static void state_tile(int64_t k, const T* a, int64_t a_row, const T* __restrict panel, T* __restrict out) {
  constexpr int lanes = kLanes<T>;
  Vec<T> sums[rows][vectors];
#pragma GCC unroll 24
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) sums[i][v] = load(panel + v * lanes);
  }
  for (int64_t p = 0; p < k; ++p) {
    panel += vectors * lanes;
    Vec<T> row[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) row[v] = load(panel + v * lanes);
#pragma GCC unroll 24
    for (int i = 0; i < rows; ++i) {
      const Vec<T> value = broadcast(a[i * a_row + p]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[i][v] += value * row[v];
    }
  }
#pragma GCC unroll 24
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) store(out + (i * vectors + v) * lanes, sums[i][v]);
  }
}

template <typename T>
using StateTile = void (*)(int64_t k, const T* a, int64_t a_row, const T* panel, T* out);

template <typename T, int vectors, int rows = kMostRows<vectors>>
static StateTile<T> state_tile_for(int64_t wanted) {
  if constexpr (rows > 1) {
    if (wanted < rows) return state_tile_for<T, vectors, rows - 1>(wanted);
  }
  return state_tile<T, vectors, rows>;
}

// Rows [i0, i1) of a times a panel, in tiles of about the same height: ahead(row) comes before a tile's product, which
// hides the latency of what is fetched there, done(first row, rows, sums of all) after it.
template <typename T, int vectors, typename Ahead, typename Done>
ULPGRAD_INLINE void multiply_panel(int64_t i0, int64_t i1, int64_t k, const T* a, int64_t a_row, const T* panel,
                                   const Ahead& ahead, const Done& done) {
  constexpr int64_t most = kMostRows<vectors>;
  alignas(64) T sums[most * vectors * kLanes<T>];
  int64_t tiles = (i1 - i0 + most - 1) / most;
  for (int64_t i = i0; i < i1; --tiles) {
    const int64_t rows = (i1 - i + tiles - 1) / tiles;
    for (int64_t r = 0; r < rows; ++r) ahead(i + r);
    state_tile_for<T, vectors>(rows)(k, a + i * a_row, a_row, panel, sums);
    done(i, rows, sums);
    i += rows;
  }
}

// The first `count` lanes, at full speed where those are all.
template <typename T>
ULPGRAD_INLINE Vec<T> get(const T* p, int64_t count) {
  return count == kLanes<T> ? load(p) : load_some(p, count);
}

template <typename T>
ULPGRAD_INLINE void put(T* p, Vec<T> v, int64_t count) {
  if (count == kLanes<T>) {
    store(p, v);
  } else {
    store_some(p, v, count);
  }
}

// step(s, rows [i0, i1), panels [u0, u1)) for all steps, rows and panels, on several threads: each takes some rows for
// the whole sequence, or, where rows are few and a step long, some panels of each step. `before(s, i0, i1)` comes
// first.
template <typename Layer, typename Before, typename Step>
ULPGRAD_INLINE void run_steps(const Layer& r, int64_t panels, const Before& before, const Step& step) {
  const int64_t row_work = std::max<int64_t>(1, gates_of(r.cell) * r.h * r.h);
  if (r.n < kRowGrain * num_threads() && r.n * row_work >= kStepGrain) {
    for (int64_t s = 0; s < r.steps; ++s) {
      before(s, int64_t{0}, r.n);
      parallel_for(panels, 1, [&](int64_t u0, int64_t u1) { step(s, int64_t{0}, r.n, u0, u1); });
    }
  } else {
    const int64_t grain = std::max(kRowGrain, kStepGrain / (r.steps * row_work));
    parallel_for(r.n, grain, [&](int64_t i0, int64_t i1) {
      for (int64_t s = 0; s < r.steps; ++s) {
        before(s, i0, i1);
        step(s, i0, i1, int64_t{0}, panels);
      }
    });
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
