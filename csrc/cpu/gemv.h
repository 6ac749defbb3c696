// Matrix times vector: nothing is used twice, so nothing is packed; the matrix is read once, in the order it stands,
// and widened on the way. The vector and the sums are as wide as sums are.
#pragma once

#include "halves_simd.h"

namespace ulpgrad::ULPGRAD_ISA {

// y[r] = dot(row r of the matrix, x), for `rows` rows that run along k. Each row has two partial sums,
// whichever rows are taken together, so that its bits do not depend on how rows are shared out.
template <typename T, int rows>
ULPGRAD_INLINE void dot_rows(int64_t k, const T* a, int64_t a_row, const Wide<T>* x, Wide<T>* y) {
  using Sum = Wide<T>;
  constexpr int lanes = kLanes<Sum>;
  Vec<Sum> even[rows] = {}, odd[rows] = {};
  int64_t p = 0;
  for (; p + 2 * lanes <= k; p += 2 * lanes) {
    const Vec<Sum> x0 = load(x + p), x1 = load(x + p + lanes);
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      even[r] += load_wide(a + r * a_row + p) * x0;
      odd[r] += load_wide(a + r * a_row + p + lanes) * x1;
    }
  }
  for (; p < k; p += lanes) {
    const int64_t left = k - p < lanes ? k - p : lanes;
    const Vec<Sum> x0 = load_some(x + p, left);
    for (int r = 0; r < rows; ++r) even[r] += load_wide_some(a + r * a_row + p, left) * x0;
  }
  for (int r = 0; r < rows; ++r) y[r] = sum<Sum>(even[r] + odd[r]);
}

template <typename T>
static void gemv_dots(int64_t rows, int64_t k, const T* a, int64_t a_row, const Wide<T>* x, Wide<T>* y) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) dot_rows<T, 4>(k, a + r * a_row, a_row, x, y + r);
  for (; r < rows; ++r) dot_rows<T, 1>(k, a + r * a_row, a_row, x, y + r);
}

// Dots of some rows that run along k with a few vectors, `far` values apart and zeros beyond k; lane by lane, since
// code that adds lanes up in the same function keeps GCC from holding the sums in registers.
template <typename T, int rows, int vectors>
static __attribute__((noinline)) void dot_lanes(int64_t k, const T* a, int64_t a_row, const Wide<T>* x, int64_t far,
                                                Wide<T>* out) {
  using Sum = Wide<T>;
  constexpr int lanes = kLanes<Sum>;
  Vec<Sum> sums[rows][vectors] = {};
  for (int64_t p = 0; p < k; p += lanes) {
    const int64_t left = k - p;
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      const T* from = a + r * a_row + p;
      const Vec<Sum> value = left >= lanes ? load_wide(from) : load_wide_some(from, left);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sums[r][v] += value * load(x + v * far + p);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < vectors; ++v) store(out + (r * vectors + v) * lanes, sums[r][v]);
  }
}

template <typename T, int rows, int vectors>
ULPGRAD_INLINE void dot_some(int64_t k, const T* a, int64_t a_row, const Wide<T>* x, int64_t far, Wide<T>* y,
                             int64_t y_row, int64_t y_col) {
  using Sum = Wide<T>;
  alignas(kVectorBytes) Sum held[rows * vectors * kLanes<Sum>];
  dot_lanes<T, rows, vectors>(k, a, a_row, x, far, held);
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < vectors; ++v) y[r * y_row + v * y_col] = sum<Sum>(load(held + (r * vectors + v) * kLanes<Sum>));
}

template <typename T, int vectors>
static void dots_of(int64_t rows, int64_t k, const T* a, int64_t a_row, const Wide<T>* x, int64_t far, Wide<T>* y,
                    int64_t y_row, int64_t y_col) {
  constexpr int together = kManyRegisters ? 4 : 2;
  int64_t r = 0;
  for (; r + together <= rows; r += together)
    dot_some<T, together, vectors>(k, a + r * a_row, a_row, x, far, y + r * y_row, y_row, y_col);
  for (; r < rows; ++r) dot_some<T, 1, vectors>(k, a + r * a_row, a_row, x, far, y + r * y_row, y_row, y_col);
}

// The same for any number of vectors, four at a time.
template <typename T>
static void gemv_few(int64_t rows, int64_t k, const T* a, int64_t a_row, const Wide<T>* x, int64_t far, int64_t vectors,
                     Wide<T>* y, int64_t y_row, int64_t y_col) {
  for (; vectors > 0; vectors -= 4, x += 4 * far, y += 4 * y_col) {
    switch (vectors) {
      case 1:
        return dots_of<T, 1>(rows, k, a, a_row, x, far, y, y_row, y_col);
      case 2:
        return dots_of<T, 2>(rows, k, a, a_row, x, far, y, y_row, y_col);
      case 3:
        return dots_of<T, 3>(rows, k, a, a_row, x, far, y, y_row, y_col);
      default:
        dots_of<T, 4>(rows, k, a, a_row, x, far, y, y_row, y_col);
    }
  }
}

// y[0..n) = the sum over p of x[p] times row p of the matrix, whose rows run along y. Eight rows at a time: y is read
// and written once for eight steps of k, and eight streams keep the prefetchers busy.
template <typename T>
static void gemv_rows(int64_t n, int64_t k, const T* b, int64_t b_row, const Wide<T>* x, Wide<T>* y) {
  using Sum = Wide<T>;
  constexpr int lanes = kLanes<Sum>, together = 8;
  for (int64_t j = 0; j < n; ++j) y[j] = 0;
  int64_t p = 0;
  for (; p + together <= k; p += together, b += together * b_row, x += together) {
    Vec<Sum> scale[together];
#pragma GCC unroll 8
    for (int i = 0; i < together; ++i) scale[i] = broadcast(x[i]);
    int64_t j = 0;
    for (; j + lanes <= n; j += lanes) {
      Vec<Sum> total = load(y + j);
#pragma GCC unroll 8
      for (int i = 0; i < together; ++i) total += scale[i] * load_wide(b + i * b_row + j);
      store(y + j, total);
    }
    if (j < n) {
      Vec<Sum> total = load_some(y + j, n - j);
#pragma GCC unroll 8
      for (int i = 0; i < together; ++i) total += scale[i] * load_wide_some(b + i * b_row + j, n - j);
      store_some(y + j, total, n - j);
    }
  }
  for (; p < k; ++p, b += b_row, ++x) {
    const Vec<Sum> scale = broadcast(*x);
    int64_t j = 0;
    for (; j + lanes <= n; j += lanes) store(y + j, load(y + j) + scale * load_wide(b + j));
    if (j < n) store_some(y + j, load_some(y + j, n - j) + scale * load_wide_some(b + j, n - j), n - j);
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
