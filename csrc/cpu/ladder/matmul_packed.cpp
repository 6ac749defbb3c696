// Blocks of A and B are copied into the order in which the tile reads them: one stream for each, instead of fourteen
// rows of A and a jump of a whole row between two steps of B, which costs TLB entries and, at powers of two, cache
// sets. Zeros pad the edges, so that all tiles are whole. A block of A fits the L2 cache and stays there while the
// panels of B pass, a block of B the L3 cache (Goto and van de Geijn, "Anatomy of high-performance matrix
// multiplication", 2008); C is read and written once per block of k.
#include "matmul_panel.h"

namespace ulpgrad::ULPGRAD_ISA {

// Columns [j0, j0 + n) of C, from steps [p, p + k): a block of B, and all blocks of A in turn.
static void multiply_columns(const Product& x, int64_t j0, int64_t n, int64_t p, int64_t k) {
  float *b = x.work, *a = x.work + kLadderBlockN * k;
  for (int64_t j = 0; j < n; j += kWidth) pack_columns(x.b + p * x.n + j0 + j, x.n, n - j, k, b + j * k);
  for (int64_t i0 = 0; i0 < x.m; i0 += kLadderBlockM) {
    const int64_t m = std::min(kLadderBlockM, x.m - i0);
    float* c = x.c + i0 * x.n + j0;
    for (int64_t i = 0; i < m; i += kRows) pack_rows(x.a + (i0 + i) * x.k + p, x.k, m - i, k, a + i * k);
    for (int64_t j = 0; j < n; j += kWidth)
      for (int64_t i = 0; i < m; i += kRows)
        packed_tile(k, a + i * k, b + j * k, c + i * x.n + j, x.n, m - i, n - j, p > 0);
  }
}

void multiply_packed(const Product& x) {
  for (int64_t j = 0; j < x.n; j += kLadderBlockN)
    for (int64_t p = 0; p == 0 || p < x.k; p += kLadderBlockK)
      multiply_columns(x, j, std::min(kLadderBlockN, x.n - j), p, std::min(kLadderBlockK, x.k - p));
}

}  // namespace ulpgrad::ULPGRAD_ISA
