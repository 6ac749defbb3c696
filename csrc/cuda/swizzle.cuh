// Where the 16-byte chunks of a tile lie in shared memory, so that no two of those moved together share a bank.
//
// Shared memory answers 128 bytes at once, eight chunks, one from each group of four banks. Matrix loads take one
// column of chunks from eight neighbouring rows: stored plainly, rows of 128 bytes or more put all of them into one
// group, eight turns instead of one. Chunk c of row r is stored at c xor (a number that changes from row to row).
#pragma once

#include "device.cuh"

namespace ulpgrad {

// Chunk of a tile whose rows are CHUNKS (a power of two) long. Rows of less than 128 bytes share a line of banks: the
// number changes from line to line.
template <int CHUNKS>
__host__ __device__ constexpr int swizzled(int row, int chunk) {
  static_assert(CHUNKS > 0 && (CHUNKS & (CHUNKS - 1)) == 0, "a row has a power of two of chunks");
  constexpr int ROWS = CHUNKS < 8 ? 8 / CHUNKS : 1, SPREAD = CHUNKS < 8 ? CHUNKS : 8;
  return row * CHUNKS + (chunk ^ (row / ROWS % SPREAD));
}

// The same for tiles of 32-bit elements that a warp reads one by one, eight neighbours (two chunks) of each of four
// lines.
template <int CHUNKS>
__host__ __device__ constexpr int swizzled_by_pairs(int row, int chunk) {
  static_assert(CHUNKS >= 8 && (CHUNKS & (CHUNKS - 1)) == 0, "a row fills all banks");
  return row * CHUNKS + (chunk ^ (row % 4 * 2));
}

}  // namespace ulpgrad
