// Matrix times vector: nothing is used twice, so nothing is packed; the matrix is read once, in the order it stands.
#pragma once

#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

// y[r * y_step] = dot(row r of the matrix, x), for `rows` rows that run along k. Each row has two partial sums,
// whichever rows are taken together, so that its bits do not depend on how rows are shared out.
template <typename T, int rows>
ULPGRAD_INLINE void dot_rows(int64_t k, const T* a, int64_t a_row, const T* x, T* y, int64_t y_step, bool add) {
  constexpr int lanes = kLanes<T>;
  Vec<T> even[rows] = {}, odd[rows] = {};
  int64_t p = 0;
  for (; p + 2 * lanes <= k; p += 2 * lanes) {
    const Vec<T> x0 = load(x + p), x1 = load(x + p + lanes);
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      even[r] += load(a + r * a_row + p) * x0;
      odd[r] += load(a + r * a_row + p + lanes) * x1;
    }
  }
  for (; p < k; p += lanes) {
    const int64_t left = k - p < lanes ? k - p : lanes;
    const Vec<T> x0 = load_some(x + p, left);
    for (int r = 0; r < rows; ++r) even[r] += load_some(a + r * a_row + p, left) * x0;
  }
  for (int r = 0; r < rows; ++r) {
    const T total = sum<T>(even[r] + odd[r]);
    y[r * y_step] = add ? y[r * y_step] + total : total;
  }
}

template <typename T>
static void gemv_dots(int64_t rows, int64_t k, const T* a, int64_t a_row, const T* x, T* y, int64_t y_step, bool add) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) dot_rows<T, 4>(k, a + r * a_row, a_row, x, y + r * y_step, y_step, add);
  for (; r < rows; ++r) dot_rows<T, 1>(k, a + r * a_row, a_row, x, y + r * y_step, y_step, add);
}

// y[0..n) = the sum over p of x[p * x_step] times row p of the matrix, whose rows run along y. Eight rows at a time: y
// is read and written once for eight steps of k, and eight streams keep the prefetchers busy.
template <typename T>
static void gemv_rows(int64_t n, int64_t k, const T* b, int64_t b_row, const T* x, int64_t x_step, T* y, bool add) {
  constexpr int lanes = kLanes<T>, together = 8;
  if (!add)
    for (int64_t j = 0; j < n; ++j) y[j] = T(0);
  int64_t p = 0;
  for (; p + together <= k; p += together, b += together * b_row, x += together * x_step) {
    Vec<T> scale[together];
#pragma GCC unroll 8
    for (int i = 0; i < together; ++i) scale[i] = broadcast(x[i * x_step]);
    int64_t j = 0;
    for (; j + lanes <= n; j += lanes) {
      Vec<T> total = load(y + j);
#pragma GCC unroll 8
      for (int i = 0; i < together; ++i) total += scale[i] * load(b + i * b_row + j);
      store(y + j, total);
    }
    if (j < n) {
      Vec<T> total = load_some(y + j, n - j);
#pragma GCC unroll 8
      for (int i = 0; i < together; ++i) total += scale[i] * load_some(b + i * b_row + j, n - j);
      store_some(y + j, total, n - j);
    }
  }
  for (; p < k; ++p, b += b_row, x += x_step) {
    const Vec<T> scale = broadcast(*x);
    int64_t j = 0;
    for (; j + lanes <= n; j += lanes) store(y + j, load(y + j) + scale * load(b + j));
    if (j < n) store_some(y + j, load_some(y + j, n - j) + scale * load_some(b + j, n - j), n - j);
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
