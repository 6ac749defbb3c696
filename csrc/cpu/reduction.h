// Reductions of contiguous arrays seen as [outer, n, inner], over n.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

enum class Reduce : int { sum, prod, max, min, squares };

// One tree for all threads and instruction sets: blocks of kBlock values (along the last axis) or kRows rows (along
// another) are each reduced in fixed lanes, then their results in pairs.
constexpr int64_t kBlock = 4096;
constexpr int64_t kRows = 128;

template <typename T>
struct ReduceFunctions {
  // One block: n values in a row. `center` is what squares measure distances from.
  T (*block)(Reduce kind, const T* x, int64_t n, T center);
  // A run of n values, block by block.
  T (*run)(Reduce kind, const T* x, int64_t n, T center);
  // n <= kRows rows of `width` values, `stride` apart, into out[width]; `center` has `width` values, or is null.
  void (*rows)(Reduce kind, const T* x, int64_t n, int64_t width, int64_t stride, const T* center, T* out);
  // Results of blocks, in pairs.
  T (*tree)(Reduce kind, const T* parts, int64_t n);
  // Where, among n >= 1 rows as above, each column has its first max or min.
  void (*arg)(Reduce kind, const T* x, int64_t n, int64_t width, int64_t stride, int64_t* out);
  // Running sums or products: down n >= 1 rows as above, or along `rows` runs of n values.
  void (*running)(Reduce kind, const T* x, T* y, int64_t n, int64_t width, int64_t stride);
  void (*running_runs)(Reduce kind, const T* x, T* y, int64_t rows, int64_t n);
};

struct ReduceTable {
  ReduceFunctions<float> f32;
  ReduceFunctions<double> f64;
};

ULPGRAD_TABLE(ReduceTable, reduce_table)

}  // namespace ulpgrad
