// The definition: each value of C is a row of A times a column of B. The sum is one chain of additions, each waiting
// for the one before, and each step down a column of B touches another cache line.
#include "matmul.h"

namespace ulpgrad::ULPGRAD_ISA {

void multiply_loops(const Product& x) {
  for (int64_t i = 0; i < x.m; ++i) {
    for (int64_t j = 0; j < x.n; ++j) {
      float sum = 0;
      for (int64_t p = 0; p < x.k; ++p) sum += x.a[i * x.k + p] * x.b[p * x.n + j];
      x.c[i * x.n + j] = sum;
    }
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
