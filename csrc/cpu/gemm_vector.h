// A product of one row or one column: the matrix is read where it stands, its rows or columns are shared out.
#pragma once

#include <algorithm>

#include "gemm.h"
#include "gemm_finish.h"
#include "gemv.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int64_t kVectorGrain = int64_t{1} << 16;  // multiply-adds that make one more thread worth its start
constexpr int64_t kVectorChunk = 1024;              // sums that are held at the same time

// One row of C, or one column: the rows of B, or of A, are shared out. False if the matrix runs along neither axis.
template <typename T>
static bool multiply_vector(const Gemm<T>& g) {
  using Sum = Wide<T>;
  const bool row = g.m == 1;
  const int64_t n = row ? g.n : g.m;
  const T *matrix = row ? g.b : g.a, *vector = row ? g.a : g.b;
  const int64_t out_step = row ? g.b_col : g.a_row, k_step = row ? g.b_row : g.a_col;
  const int64_t x_step = row ? g.a_col : g.b_row;
  const bool dots = k_step == 1;
  if (!dots && out_step != 1) return false;
  Sum* x = static_cast<Sum*>(scratch(Slot::gemm_a, std::max<int64_t>(1, g.k) * sizeof(Sum)));
  for (int64_t p = 0; p < g.k; ++p) x[p] = widen(vector[p * x_step]);
  const auto part = [&](int64_t begin, int64_t end) {
    alignas(64) Sum y[kVectorChunk];
    for (int64_t first = begin; first < end; first += kVectorChunk) {
      const int64_t count = std::min(kVectorChunk, end - first);
      if (dots) {
        gemv_dots(count, g.k, matrix + first * out_step, out_step, x, y);
      } else {
        gemv_rows(count, g.k, matrix + first, k_step, x, y);
      }
      if (row) {
        finish(y, count, g.c + first, count, 1, count, g.bias ? g.bias + first : nullptr, g.activation, g.accumulate);
      } else {
        finish(y, 1, g.c + first * g.c_row, g.c_row, count, 1, g.bias, g.activation, g.accumulate);
      }
    }
  };
  constexpr int64_t unit = 2 * kLanes<Sum>;  // parts begin at whole vectors
  const auto units = [&](int64_t begin, int64_t end) { part(begin * unit, std::min(end * unit, n)); };
  if (g.threaded) {
    parallel_for((n + unit - 1) / unit, 1 + kVectorGrain / (unit * std::max<int64_t>(1, g.k)), units);
  } else {
    part(0, n);
  }
  return true;
}

}  // namespace ulpgrad::ULPGRAD_ISA
