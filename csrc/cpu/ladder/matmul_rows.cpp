// The same loops in another order: a value of A times a row of B is added to a row of C. Memory is read along its
// lines, and the steps of the inner loop do not depend on each other, so that the compiler uses vectors.
#include <algorithm>

#include "matmul.h"

namespace ulpgrad::ULPGRAD_ISA {

void multiply_part(const Product& x, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
  for (int64_t i = i0; i < i1; ++i) {
    float* __restrict row = x.c + i * x.n;
    std::fill(row + j0, row + j1, 0.0f);
    for (int64_t p = 0; p < x.k; ++p) {
      const float scale = x.a[i * x.k + p];
      const float* line = x.b + p * x.n;
      for (int64_t j = j0; j < j1; ++j) row[j] += scale * line[j];
    }
  }
}

void multiply_rows(const Product& x) { multiply_part(x, 0, x.m, 0, x.n); }

}  // namespace ulpgrad::ULPGRAD_ISA
