// A product of tiles on the matrix units: 128 x COLUMNS results, in steps of 64 bytes of what is summed over. While a
// tile is multiplied the copies of the next three are on their way, which no thread waits for nor spends registers on.
#pragma once

#include "matrix_unit.cuh"
#include "swizzle.cuh"

namespace ulpgrad {

// T is Float16, Bfloat16, float or Byte. A tile of an operand lies in shared memory either with its rows (or columns)
// as lines of DEPTH steps, or, with A_ALONG or B_ALONG, step by step as lines of its rows (or columns): as neighbours
// lie in the array.
template <class T, int WIDTH, bool A_ALONG, bool B_ALONG = A_ALONG>
struct MatrixTile {
  static constexpr int ROWS = 128, COLUMNS = WIDTH, DEPTH = 64 / sizeof(T), STAGES = 4;
  static constexpr int CHUNK = 16 / sizeof(T), STEP = 2 * CHUNK;  // elements of 16 bytes, and steps of one instruction
  static constexpr int WARP_ROWS = 64, WARP_COLUMNS = 32, WARPS = ROWS / WARP_ROWS * (COLUMNS / WARP_COLUMNS);
  static constexpr int THREADS = WARPS * WARP;
  static constexpr int M = WARP_ROWS / 16, N = WARP_COLUMNS / 8;  // matrices of a warp
  static constexpr int A_BYTES = ROWS * 64, B_BYTES = COLUMNS * 64, STAGE_BYTES = A_BYTES + B_BYTES;
  static constexpr int BYTES = STAGES * STAGE_BYTES;
  static constexpr int A_LINE = (A_ALONG ? ROWS : DEPTH) / CHUNK, B_LINE = (B_ALONG ? COLUMNS : DEPTH) / CHUNK;

  UnitSum<T> sums[M][N][4] = {};

  __device__ static int warp_row(int thread) { return thread / WARP % (ROWS / WARP_ROWS) * WARP_ROWS; }
  __device__ static int warp_column(int thread) { return thread / WARP / (ROWS / WARP_ROWS) * WARP_COLUMNS; }

  // Chunk `chunk` of a line of the tile of A, or of B, in the memory of a stage.
  __device__ static unsigned char* chunk_of_a_tile(unsigned char* stage, int line, int chunk) {
    return stage + place_of_chunk<A_LINE, A_ALONG>(line, chunk) * 16;
  }
  __device__ static unsigned char* chunk_of_b_tile(unsigned char* stage, int line, int chunk) {
    return stage + A_BYTES + place_of_chunk<B_LINE, B_ALONG>(line, chunk) * 16;
  }
  template <int LINE, bool ALONG>
  __device__ static int place_of_chunk(int line, int chunk) {
    if constexpr (ALONG && sizeof(T) == 4) {
      return swizzled_by_pairs<LINE>(line, chunk);
    } else {
      return swizzled<LINE>(line, chunk);
    }
  }

  // A 32-bit element of a tile whose lines are steps: loads of matrices transpose halves of registers only.
  __device__ static unsigned element_of_a(const unsigned char* stage, int step, int row) {
    return *reinterpret_cast<const unsigned*>(stage + place_of_chunk<A_LINE, true>(step, row / 4) * 16 + row % 4 * 4);
  }
  __device__ static unsigned element_of_b(const unsigned char* stage, int step, int column) {
    return *reinterpret_cast<const unsigned*>(stage + A_BYTES + place_of_chunk<B_LINE, true>(step, column / 4) * 16 +
                                              column % 4 * 4);
  }

  template <class... How>
  __device__ inline void multiply(unsigned char* stage, int thread, How... how) {
    const int lane = thread % WARP, row = warp_row(thread), column = warp_column(thread);
#pragma unroll(sizeof(T) == 4 ? 1 : DEPTH / STEP)  // the parts of both steps would take too many registers
    for (int step = 0; step < DEPTH; step += STEP) {
      unsigned a[M][4], b[N][2];
#pragma unroll
      for (int i = 0; i < M; ++i) {
        if constexpr (A_ALONG && sizeof(T) == 4) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const Spot at = spot_of_a<1>(lane, e);
            a[i][e] = element_of_a(stage, step + at.column, row + i * 16 + at.row);
          }
        } else if constexpr (A_ALONG) {
          const Spot at = chunk_of_a_transposed(lane);
          load_matrices<true>(a[i], chunk_of_a_tile(stage, step + at.row, (row + i * 16) / CHUNK + at.column));
        } else {
          const Spot at = chunk_of_a(lane);
          load_matrices<false>(a[i], chunk_of_a_tile(stage, row + i * 16 + at.row, step / CHUNK + at.column));
        }
      }
#pragma unroll
      for (int j = 0; j < N; j += 2) {
        unsigned both[4];
        if constexpr (B_ALONG && sizeof(T) == 4) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const Spot at = spot_of_b<1>(lane, e % 2);
            both[e] = element_of_b(stage, step + at.row, column + j * 8 + e / 2 * 8 + at.column);
          }
        } else if constexpr (B_ALONG) {
          const Spot at = chunk_of_b(lane);
          load_matrices<true>(both, chunk_of_b_tile(stage, step + at.row, (column + j * 8) / CHUNK + at.column));
        } else {
          const Spot at = chunk_of_b_transposed(lane);
          load_matrices<false>(both, chunk_of_b_tile(stage, column + j * 8 + at.row, step / CHUNK + at.column));
        }
        b[j][0] = both[0], b[j][1] = both[1];
        b[j + 1][0] = both[2], b[j + 1][1] = both[3];
      }
      multiply_add_all<T>(sums, a, b, how...);
    }
  }

  // Adds the sums over `steps` tiles. copy(step, stage) begins this thread's share of the copies of a tile. The memory
  // is free afterwards. `how`: the signs of bytes.
  template <class Copy, class... How>
  __device__ inline void run(unsigned char* memory, int steps, int thread, const Copy& copy, How... how) {
#pragma unroll
    for (int step = 0; step < STAGES - 1; ++step) {
      if (step < steps) copy(step, memory + step * STAGE_BYTES);
      close_copy_group();
    }
    for (int step = 0; step < steps; ++step) {
      wait_for_copies<STAGES - 2>();
      __syncthreads();  // this tile has arrived for all, and nobody reads the one that is filled next
      const int next = step + STAGES - 1;
      if (next < steps) copy(next, memory + next % STAGES * STAGE_BYTES);
      close_copy_group();
      multiply(memory + step % STAGES * STAGE_BYTES, thread, how...);
    }
    wait_for_copies<0>();
    __syncthreads();
  }

  // Calls each(row, column, sum) for this thread's results.
  template <class Each>
  __device__ inline void for_each(int thread, const Each& each) {
#pragma unroll
    for (int i = 0; i < M; ++i) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const Spot at = spot_of_c(thread % WARP, e);
          each(warp_row(thread) + i * 16 + at.row, warp_column(thread) + j * 8 + at.column, sums[i][j][e]);
        }
      }
    }
  }
};

}  // namespace ulpgrad
