// Kernels that treat each row of a [rows, n] array by itself: softmax and cross entropy.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

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
};

struct RowTable {
  RowFunctions<float> f32;
  RowFunctions<double> f64;
};

ULPGRAD_TABLE(RowTable, row_table)

}  // namespace ulpgrad
