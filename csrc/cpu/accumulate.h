// Sums whose accumulator has a chosen format: every addition is exact, then rounded once to that format.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

// A binary float as what rounding to it needs; units are those of the accumulated values.
struct AccumulatorFormat {
  int mantissa_bits;  // stored ones
  int min_exponent;   // of the smallest normal value
  int max_exponent;   // of the largest value
  double max;         // the largest value
  double beyond;      // what finite sums above it become: infinity, NaN or max
};

// Nearest even, or with `random_bits` > 0 stochastic: addition t of result r takes word t of the Philox4x32-10 stream
// of `key` from block `counter` + r * blocks on.
struct Accumulation {
  AccumulatorFormat format;
  int64_t chunk;  // terms per partial sum; one sum runs through all where it is at least their number
  int random_bits;
  uint64_t key, counter_low, counter_high;
  int64_t blocks;
};

// A matrix in memory: strides in values.
template <typename T>
struct Strided {
  T* values;
  int64_t row, column;
};

// c[i, j] = the sum of a[i, t] b[t, j] over t < k, for i < m and j < n. c[i, j] is result `first` + its offset in c.
template <typename T>
struct AccumulateTask {
  Strided<const T> a, b;
  Strided<T> c;
  int64_t m, k, n, first;
};

// Running sums of columns: out[t, j] = the sum of x[0..t, j], for t < k and j < n; column j is result `first` + j.
template <typename T>
struct RunningTask {
  Strided<const T> x;
  Strided<T> out;
  int64_t k, n, first;
};

struct AccumulateTable {
  void (*product32)(const Accumulation&, const AccumulateTask<float>&);
  void (*product64)(const Accumulation&, const AccumulateTask<double>&);
  void (*running32)(const Accumulation&, const RunningTask<float>&);
  void (*running64)(const Accumulation&, const RunningTask<double>&);
};

ULPGRAD_TABLE(AccumulateTable, accumulate_table)

}  // namespace ulpgrad
