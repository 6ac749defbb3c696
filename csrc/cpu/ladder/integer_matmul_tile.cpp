#include "integer_matmul_units.h"

namespace ulpgrad::ULPGRAD_ISA {

// Sums of six rows by two vectors stay in registers over all of k: each unit that is read meets six others.
static void tile(const IntegerProduct& p, int64_t i, int64_t rows, int64_t j, int64_t width) {
  Ints sums[2 * kTileRows];
#pragma GCC unroll 12
  for (int t = 0; t < 2 * kTileRows; ++t) sums[t] = Ints{};
  const int8_t* a[kTileRows];
  for (int r = 0; r < kTileRows; ++r) a[r] = p.a + (i + (r < rows ? r : 0)) * p.k;  // for rows that are missing, any
  for (int64_t u = 0; u < p.pairs(); ++u) {
    const int32_t* b = p.work + u * width + j;
#pragma GCC unroll 12
    for (int t = 0; t < 2 * kTileRows; ++t) {
      const Ints value = broadcast(pair_of(a[t / 2] + 2 * u, 1, 2 * u + 1 < p.k));
      sums[t] = add_pairs(sums[t], value, load(b + t % 2 * kPairLanes));
    }
  }
  int32_t block[2 * kTileRows][kPairLanes];
#pragma GCC unroll 12
  for (int t = 0; t < 2 * kTileRows; ++t) store(block[t], sums[t]);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t x = 0; x < kTileColumns && j + x < p.n; ++x)
      p.c[(i + r) * p.n + j + x] = block[2 * r + x / kPairLanes][x % kPairLanes];
}

void integer_tile(const IntegerProduct& p) {
  const int64_t width = (p.n + kTileColumns - 1) / kTileColumns * kTileColumns;  // B's rows end with zeros
  for (int64_t u = 0; u < p.pairs(); ++u)
    for (int64_t j = 0; j < width; ++j)
      p.work[u * width + j] = j < p.n ? pair_of(p.b + 2 * u * p.n + j, p.n, 2 * u + 1 < p.k) : 0;
  for (int64_t i = 0; i < p.m; i += kTileRows)
    for (int64_t j = 0; j < p.n; j += kTileColumns) tile(p, i, p.m - i < kTileRows ? p.m - i : kTileRows, j, width);
}

}  // namespace ulpgrad::ULPGRAD_ISA
