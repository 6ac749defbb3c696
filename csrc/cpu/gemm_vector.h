// A product of one row or one column, or of a few: the matrix is read where it stands, its rows or columns are shared
// out.
#pragma once

#include <algorithm>
#include <type_traits>

#include "gemm.h"
#include "gemm_finish.h"
#include "gemv.h"
#include "scratch.h"
#include "threads.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int64_t kVectorGrain = int64_t{1} << 16;  // multiply-adds that make one more thread worth its start
constexpr int64_t kVectorChunk = 1024;              // sums that are held at the same time

// Calls part(begin, end) for parts of n that begin at whole vectors, where each of n takes k multiply-adds.
template <typename Sum, typename Part>
static void share_out(bool threaded, int64_t n, int64_t k, const Part& part) {
  constexpr int64_t unit = 2 * kLanes<Sum>;
  const auto units = [&](int64_t begin, int64_t end) { part(begin * unit, std::min(end * unit, n)); };
  if (!threaded) return part(0, n);
  parallel_for((n + unit - 1) / unit, 1 + kVectorGrain / (unit * std::max<int64_t>(1, k)), units);
}

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
      row ? write_out(g, y, count, 0, first, 1, count) : write_out(g, y, 1, first, 0, count, 1);
    }
  };
  share_out<Sum>(g.threaded, n, g.k, part);
  return true;
}

constexpr int64_t kFew = 16;       // most rows of which packing the matrix would cost more than their dots
constexpr int64_t kFewLeast = 64;  // k from which on adding up the lanes of a dot does not count

// A few rows of C, where B's columns run along k, or a few columns, where A's rows do. False if they do not.
template <typename T>
static bool multiply_few(const Gemm<T>& g) {
  using Sum = Wide<T>;
  const bool rows = g.m <= (std::is_same_v<T, Bfloat16> ? kFew / 2 : kFew) && g.b_row == 1;
  if (g.k < kFewLeast || !(rows || (g.n <= kFew / 2 && g.a_col == 1))) return false;
  const int64_t n = rows ? g.n : g.m, vectors = rows ? g.m : g.n;
  const T *matrix = rows ? g.b : g.a, *from = rows ? g.a : g.b;
  const int64_t step = rows ? g.b_col : g.a_row;
  const int64_t x_step = rows ? g.a_col : g.b_row, x_next = rows ? g.a_row : g.b_col;
  const int64_t far = (g.k / kLanes<Sum> + 2) * kLanes<Sum>;  // never whole pages apart: they would share one cache set
  Sum* x = static_cast<Sum*>(scratch(Slot::gemm_a, vectors * far * sizeof(Sum)));
  for (int64_t v = 0; v < vectors; ++v)
    for (int64_t p = 0; p < far; ++p) x[v * far + p] = p < g.k ? widen(from[v * x_next + p * x_step]) : Sum(0);
  share_out<Sum>(g.threaded, n, g.k * vectors, [&](int64_t begin, int64_t end) {
    constexpr int64_t chunk = kVectorChunk / kFew;
    alignas(64) Sum y[kVectorChunk];
    for (int64_t first = begin; first < end; first += chunk) {
      const int64_t count = std::min(chunk, end - first);
      if (rows) {
        gemv_few(count, g.k, matrix + first * step, step, x, far, vectors, y, 1, chunk);
        write_out(g, y, chunk, 0, first, vectors, count);
      } else {
        gemv_few(count, g.k, matrix + first * step, step, x, far, vectors, y, kFew, 1);
        write_out(g, y, kFew, first, 0, count, vectors);
      }
    }
  });
  return true;
}

}  // namespace ulpgrad::ULPGRAD_ISA
