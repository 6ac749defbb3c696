// Rows share what is loaded: two vectors of B serve all rows of a tile of C, a value of A both vectors. With AVX-512
// that is sixteen loads for 28 FMAs, where a row by itself takes a load for each.
#include "matmul_tile.h"

namespace ulpgrad::ULPGRAD_ISA {

void multiply_tile(const Product& x) {
  const int64_t m = x.m / kRows * kRows, n = x.n / kWidth * kWidth;
  for (int64_t j = 0; j < n; j += kWidth)
    for (int64_t i = 0; i < m; i += kRows)
      tile(x.k, x.a + i * x.k, x.k, 1, x.b + j, x.n, x.c + i * x.n + j, x.n, kRows, kWidth, false);
  multiply_part(x, 0, m, n, x.n);
  multiply_part(x, m, x.m, 0, x.n);
}

}  // namespace ulpgrad::ULPGRAD_ISA
