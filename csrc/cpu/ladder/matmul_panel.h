// Packing: the rows of A or columns of B that a tile reads are copied into a panel, in the order in which it reads
// them. What is missing at the edges of the matrix becomes zeros.
#pragma once

#include "matmul_tile.h"

namespace ulpgrad::ULPGRAD_ISA {

// panel[p][r] = a[r][p]
ULPGRAD_INLINE void pack_rows(const float* a, int64_t a_row, int64_t rows, int64_t k, float* panel) {
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t p = 0; p < k; ++p) panel[p * kRows + r] = r < rows ? a[r * a_row + p] : 0.0f;
}

// panel[p][l] = b[p][l]
ULPGRAD_INLINE void pack_columns(const float* b, int64_t b_row, int64_t cols, int64_t k, float* panel) {
  for (int64_t p = 0; p < k; ++p, b += b_row, panel += kWidth) {
    const int64_t count = std::min(cols, kWidth);
    std::copy(b, b + count, panel);
    std::fill(panel + count, panel + kWidth, 0.0f);
  }
}

// The tile on packed panels.
static void packed_tile(int64_t k, const float* a, const float* b, float* c, int64_t c_row, int64_t rows, int64_t cols,
                        bool add) {
  tile(k, a, 1, kRows, b, kWidth, c, c_row, rows, cols, add);
}

}  // namespace ulpgrad::ULPGRAD_ISA
