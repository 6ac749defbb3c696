// A product of tiles whose results stay in registers: 256 threads make 128 x 64 of them, 8 x 4 each, so that twelve
// values from shared memory serve 32 multiply-adds.
#pragma once

#include "packet.cuh"

namespace ulpgrad {

template <class S>
struct RegisterTile {
  static constexpr int ROWS = 128, COLUMNS = 64, DEPTH = 8, THREADS = 256;
  static constexpr int OWN_ROWS = 8, OWN_COLUMNS = 4;
  static constexpr int LOADED_ROWS = ROWS * DEPTH / THREADS, LOADED_COLUMNS = COLUMNS * DEPTH / THREADS;

  // Two of each: one is filled while the other is read. The padding gives the threads that fill one a bank each.
  struct alignas(16) Memory {
    S a[2][DEPTH][ROWS + 4];
    S b[2][DEPTH][COLUMNS + 4];
  };

  S sums[OWN_ROWS][OWN_COLUMNS] = {};

  __device__ static int own_row(int thread) { return thread / (COLUMNS / OWN_COLUMNS) * OWN_ROWS; }
  __device__ static int own_column(int thread) { return thread % (COLUMNS / OWN_COLUMNS) * OWN_COLUMNS; }

  __device__ inline void multiply(const Memory& memory, int buffer, int thread) {
    const int row = own_row(thread), column = own_column(thread);
#pragma unroll
    for (int k = 0; k < DEPTH; ++k) {
      const Packet<S, OWN_ROWS> a = packet_at<S, OWN_ROWS>(&memory.a[buffer][k][row]);
      const Packet<S, OWN_COLUMNS> b = packet_at<S, OWN_COLUMNS>(&memory.b[buffer][k][column]);
#pragma unroll
      for (int i = 0; i < OWN_ROWS; ++i) {
#pragma unroll
        for (int j = 0; j < OWN_COLUMNS; ++j) sums[i][j] += a.values[i] * b.values[j];
      }
    }
  }

  // The sums over `depth` steps. load(first) takes this thread's share of DEPTH steps from memory into registers, and
  // store(buffer) puts it into the tile: the multiplications of one tile hide the way of the next.
  template <class Load, class Store>
  __device__ inline void run(const Memory& memory, int depth, int thread, const Load& load, const Store& store) {
    if (depth <= 0) return;
    load(0);
    store(0);
    int buffer = 0;
    for (int first = 0; first < depth; first += DEPTH, buffer ^= 1) {
      __syncthreads();
      const bool more = first + DEPTH < depth;
      if (more) load(first + DEPTH);
      multiply(memory, buffer, thread);
      if (more) store(buffer ^ 1);
    }
  }
};

}  // namespace ulpgrad
