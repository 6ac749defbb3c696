#include "integer_matmul_units.h"

namespace ulpgrad::ULPGRAD_ISA {

// Both operands are packed as the tile reads them, front to back: A's six rows as pairs once for all columns, B panel
// by panel, filled up with zeros, so that no step asks what is there.
static void tile(int64_t units, const int32_t* a, const int32_t* b, int32_t* block) {
  Ints sums[2 * kTileRows];
#pragma GCC unroll 12
  for (int t = 0; t < 2 * kTileRows; ++t) sums[t] = Ints{};
  for (int64_t u = 0; u < units; ++u, a += kTileRows, b += kTileColumns) {
#pragma GCC unroll 12
    for (int t = 0; t < 2 * kTileRows; ++t)
      sums[t] = add_pairs(sums[t], broadcast(a[t / 2]), load(b + t % 2 * kPairLanes));
  }
#pragma GCC unroll 12
  for (int t = 0; t < 2 * kTileRows; ++t) store(block + t * kPairLanes, sums[t]);
}

void integer_panels(const IntegerProduct& p) {
  const int64_t units = p.pairs();
  int32_t* const rows = p.work + units * ((p.n + kTileColumns - 1) / kTileColumns * kTileColumns);
  for (int64_t j = 0; j < p.n; j += kTileColumns) {
    int32_t* panel = p.work + units * j;
    for (int64_t u = 0; u < units; ++u, panel += kTileColumns)
      for (int64_t x = 0; x < kTileColumns; ++x)
        panel[x] = j + x < p.n ? pair_of(p.b + 2 * u * p.n + j + x, p.n, 2 * u + 1 < p.k) : 0;
  }
  int32_t block[kTileRows * kTileColumns];
  for (int64_t i = 0; i < p.m; i += kTileRows) {
    const int64_t count = p.m - i < kTileRows ? p.m - i : kTileRows;
    for (int64_t u = 0; u < units; ++u)
      for (int64_t r = 0; r < kTileRows; ++r)
        rows[u * kTileRows + r] = r < count ? pair_of(p.a + (i + r) * p.k + 2 * u, 1, 2 * u + 1 < p.k) : 0;
    for (int64_t j = 0; j < p.n; j += kTileColumns) {
      tile(units, rows, p.work + units * j, block);
      for (int64_t r = 0; r < count; ++r)
        for (int64_t x = 0; x < kTileColumns && j + x < p.n; ++x)
          p.c[(i + r) * p.n + j + x] = block[r * kTileColumns + x];
    }
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
