// A block of rows of B stays in the L2 cache while all rows of A pass, and of it four rows are taken at a time: each
// vector of C is loaded and stored once for four multiply-adds.
#include <algorithm>

#include "matmul.h"

namespace ulpgrad::ULPGRAD_ISA {

void multiply_blocks(const Product& x) {
  constexpr int64_t values = 1 << 17;  // of a block: 512 KiB
  const int64_t depth = std::max<int64_t>(values / x.n / 4, 1) * 4;
  std::fill(x.c, x.c + x.m * x.n, 0.0f);
  for (int64_t begin = 0; begin < x.k; begin += depth) {
    const int64_t end = std::min(begin + depth, x.k), whole = begin + (end - begin) / 4 * 4;
    for (int64_t i = 0; i < x.m; ++i) {
      const float* a = x.a + i * x.k;
      float* __restrict row = x.c + i * x.n;
      for (int64_t p = begin; p < whole; p += 4) {
        const float *b0 = x.b + p * x.n, *b1 = b0 + x.n, *b2 = b1 + x.n, *b3 = b2 + x.n;
        const float a0 = a[p], a1 = a[p + 1], a2 = a[p + 2], a3 = a[p + 3];
        for (int64_t j = 0; j < x.n; ++j) row[j] = row[j] + a0 * b0[j] + a1 * b1[j] + a2 * b2[j] + a3 * b3[j];
      }
      for (int64_t p = whole; p < end; ++p)
        for (int64_t j = 0; j < x.n; ++j) row[j] += a[p] * x.b[p * x.n + j];
    }
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
