// Four steps of k at a time: each vector of C is loaded and stored once for four multiply-adds instead of one.
#include <algorithm>

#include "matmul.h"

namespace ulpgrad::ULPGRAD_ISA {

void multiply_steps(const Product& x) {
  const int64_t whole = x.k / 4 * 4;
  for (int64_t i = 0; i < x.m; ++i) {
    const float* a = x.a + i * x.k;
    float* __restrict row = x.c + i * x.n;
    std::fill(row, row + x.n, 0.0f);
    for (int64_t p = 0; p < whole; p += 4) {
      const float *b0 = x.b + p * x.n, *b1 = b0 + x.n, *b2 = b1 + x.n, *b3 = b2 + x.n;
      const float a0 = a[p], a1 = a[p + 1], a2 = a[p + 2], a3 = a[p + 3];
      for (int64_t j = 0; j < x.n; ++j) row[j] = row[j] + a0 * b0[j] + a1 * b1[j] + a2 * b2[j] + a3 * b3[j];
    }
    for (int64_t p = whole; p < x.k; ++p)
      for (int64_t j = 0; j < x.n; ++j) row[j] += a[p] * x.b[p * x.n + j];
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
