// The ladder of the int8 matrix product: one idea per file, on one thread, with the vectors that every CPU has. The
// rungs above them (isa/integer.cpp) add threads, strides, wider vectors and VNNI.
#pragma once

#include "isa.h"

namespace ulpgrad {

// c[m, n] = a[m, k] @ b[k, n], all contiguous; sums wrap. `work`: room for b as pairs of 16-bit values, or null.
struct IntegerProduct {
  const int8_t *a, *b;
  int32_t *c, *work;
  int64_t m, n, k;

  int64_t pairs() const { return (k + 1) / 2; }
};

using MultiplyIntegers = void (*)(const IntegerProduct&);

struct IntegerLadder {
  MultiplyIntegers loops, rows, pairs, tile, panels;
};

ULPGRAD_TABLE(IntegerLadder, integer_ladder)

}  // namespace ulpgrad
