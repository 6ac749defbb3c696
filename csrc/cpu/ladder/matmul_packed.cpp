// A and panels of B are copied into the order in which the tile reads them: one stream for each, instead of fourteen
// rows of A and a jump of a whole row between two steps of B, which costs TLB entries and, at powers of two, cache
// sets. Zeros pad the edges, so that all tiles are whole.
#include "matmul_panel.h"

namespace ulpgrad::ULPGRAD_ISA {

void multiply_packed(const Product& x) {
  float *a = x.work, *b = x.work + (x.m + kRows) * x.k;
  for (int64_t i = 0; i < x.m; i += kRows) pack_rows(x.a + i * x.k, x.k, x.m - i, x.k, a + i * x.k);
  for (int64_t j = 0; j < x.n; j += kWidth) {
    pack_columns(x.b + j, x.n, x.n - j, x.k, b);
    for (int64_t i = 0; i < x.m; i += kRows)
      packed_tile(x.k, a + i * x.k, b, x.c + i * x.n + j, x.n, x.m - i, x.n - j, false);
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
