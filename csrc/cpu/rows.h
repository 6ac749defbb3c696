// Kernels that treat each row of a [rows, n] array by itself: softmax and cross entropy.
#pragma once

#include <cstdint>

#include "for_floats.h"
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

// Each works on `rows` rows of n values. 16-bit values are widened as they are read, and results rounded once.
template <typename S>
struct RowFunctions {
  // `row` is memory for n values, needed where S has 16 bits.
  void (*softmax)(const S* x, S* y, Wide<S>* row, int64_t rows, int64_t n);
  void (*log_softmax)(const S* x, S* y, int64_t rows, int64_t n);
  void (*softmax_gradient)(const S* g, const S* y, S* dx, int64_t rows, int64_t n);
  void (*log_softmax_gradient)(const S* g, const S* y, S* dx, int64_t rows, int64_t n);
  void (*cross_entropy)(const S* x, const Targets& target, S* loss, Wide<S>* lse, int64_t rows, int64_t n);
  void (*cross_entropy_gradient)(const S* g, const S* x, const Targets& target, const Wide<S>* lse, S* dx, int64_t rows,
                                 int64_t n);
  // The first four on columns: n rows of width <= kColumns values, `stride` apart, each column by itself.
  void (*softmax_columns)(const S* x, S* y, int64_t n, int64_t width, int64_t stride);
  void (*log_softmax_columns)(const S* x, S* y, int64_t n, int64_t width, int64_t stride);
  void (*softmax_gradient_columns)(const S* g, const S* y, S* dx, int64_t n, int64_t width, int64_t stride);
  void (*log_softmax_gradient_columns)(const S* g, const S* y, S* dx, int64_t n, int64_t width, int64_t stride);
};

using RowTable = ForFloats<RowFunctions>;

ULPGRAD_TABLE(RowTable, row_table)

}  // namespace ulpgrad
