// Kernels that treat each row of a [rows, n] array by itself: softmax and cross entropy.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

// Columns taken together: what is kept per column lies in the first cache, a few thousand rows of them in the second.
constexpr int64_t kColumns = 64;

// What the target distribution of cross entropy is made of.
struct Targets {
  const int64_t* index;
  int64_t ignored;
  double smoothing;
};

// Each works on `rows` rows of n values.
template <typename T>
struct RowFunctions {
  void (*softmax)(const T* x, T* y, int64_t rows, int64_t n);
  void (*log_softmax)(const T* x, T* y, int64_t rows, int64_t n);
  void (*softmax_gradient)(const T* g, const T* y, T* dx, int64_t rows, int64_t n);
  void (*log_softmax_gradient)(const T* g, const T* y, T* dx, int64_t rows, int64_t n);
  void (*cross_entropy)(const T* x, const Targets& target, T* loss, T* lse, int64_t rows, int64_t n);
  void (*cross_entropy_gradient)(const T* g, const T* x, const Targets& target, const T* lse, T* dx, int64_t rows,
                                 int64_t n);
  // The same four on columns: n rows of width <= kColumns values, `stride` apart, each column by itself.
  void (*softmax_columns)(const T* x, T* y, int64_t n, int64_t width, int64_t stride);
  void (*log_softmax_columns)(const T* x, T* y, int64_t n, int64_t width, int64_t stride);
  void (*softmax_gradient_columns)(const T* g, const T* y, T* dx, int64_t n, int64_t width, int64_t stride);
  void (*log_softmax_gradient_columns)(const T* g, const T* y, T* dx, int64_t n, int64_t width, int64_t stride);
};

struct RowTable {
  RowFunctions<float> f32;
  RowFunctions<double> f64;
};

ULPGRAD_TABLE(RowTable, row_table)

}  // namespace ulpgrad
