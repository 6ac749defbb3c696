// Reductions of contiguous arrays seen as [outer, n, inner], over n.
#pragma once

#include <cstdint>

#include "for_floats.h"
#include "isa.h"

namespace ulpgrad {

enum class Reduce : int { sum, prod, max, min, squares };

// One tree for all threads and instruction sets: blocks of kBlock values (along the last axis) or kRows rows (along
// another) are each reduced in fixed lanes, then their results in pairs.
constexpr int64_t kBlock = 4096;
constexpr int64_t kRows = 128;
constexpr int64_t kTile = 1024;  // columns whose accumulators stay in the first cache

// Values of S are joined as Wide<S>.
template <typename S>
struct ReduceFunctions {
  // One block: n values in a row. `center` is what squares measure distances from.
  Wide<S> (*block)(Reduce kind, const S* x, int64_t n, Wide<S> center);
  // `rows` runs of n values, each block by block; `center` has a value for each, or is null.
  void (*runs)(Reduce kind, const S* x, int64_t rows, int64_t n, const Wide<S>* center, Wide<S>* out);
  // n <= kRows rows of `width` values, `stride` apart, into out[width]; `center` has `width` values, or is null.
  void (*rows)(Reduce kind, const S* x, int64_t n, int64_t width, int64_t stride, const Wide<S>* center, Wide<S>* out);
  // Results of blocks, in pairs.
  Wide<S> (*tree)(Reduce kind, const Wide<S>* parts, int64_t n);
  // Where, among n >= 1 rows as above, each column has its first max or min.
  void (*arg)(Reduce kind, const S* x, int64_t n, int64_t width, int64_t stride, int64_t* out);
  // The same along each of `rows` runs of n >= 1 values.
  void (*arg_runs)(Reduce kind, const S* x, int64_t rows, int64_t n, int64_t* out);
  // Running sums or products: down n >= 1 rows of width <= kTile values, or along `rows` runs of n values.
  void (*running)(Reduce kind, const S* x, S* y, int64_t n, int64_t width, int64_t stride);
  void (*running_runs)(Reduce kind, const S* x, S* y, int64_t rows, int64_t n);
};

using ReduceTable = ForFloats<ReduceFunctions>;

ULPGRAD_TABLE(ReduceTable, reduce_table)

}  // namespace ulpgrad
