// From a tile's sums in shared memory to results in memory: what follows a sum is done to it there, by a short loop,
// and neighbouring threads store what lies side by side.
#pragma once

#include "conv_gather.cuh"
#include "packet.cuh"

namespace ulpgrad {

// Sums of a tile, in lines of COLUMNS that are padded so that the rows of a fragment begin in different banks, and this
// thread's number among the THREADS that finish them together.
template <int HEIGHT, int WIDTH, int COUNT>
struct Sums {
  static constexpr int ROWS = HEIGHT, COLUMNS = WIDTH, THREADS = COUNT, PITCH = WIDTH + 8;
  static constexpr int BYTES = HEIGHT * PITCH * 4;

  float* memory;
  unsigned first_row;
  int first_write, thread;

  __device__ inline float& at(int row, int column) const { return memory[row * PITCH + column]; }
  __device__ inline bool is_result(const Gather& g, int row, int column) const {
    return first_row + row < static_cast<unsigned>(g.count) && first_write + column < g.writes;
  }
};

// AGAIN: sums of the forward pass that are not finite are made again by the definition. wait() is a barrier for those
// who finish the tile. Each of them has all the sums before it.
template <bool GRADIENT, bool AGAIN, class Tile, class T, class Wait>
__device__ inline void finish_and_store(const Tile& tile, T* y, const Strides& ys, const T* x, const Strides& xs,
                                        const T* w, const Strides& ws, const Convolution& c, const Gather& g,
                                        const Epilogue<T>& e, const Wait& wait) {
  constexpr int ROWS = Tile::ROWS, COLUMNS = Tile::COLUMNS, CHUNK = 16 / sizeof(T);
  if (GRADIENT || AGAIN || !e.is_nothing()) {
    const bool by_channels =
        GRADIENT || !e.residual || e.after.residual.channel == 1;  // neighbouring threads read neighbours
#pragma unroll 1
    for (int i = tile.thread; i < ROWS * COLUMNS; i += Tile::THREADS) {
      const int row = by_channels ? i / COLUMNS : i % ROWS, column = by_channels ? i % COLUMNS : i / ROWS;
      if (!tile.is_result(g, row, column)) continue;
      const unsigned result = tile.first_row + row;
      const int write = tile.first_write + column;
      float& sum = tile.at(row, column);
      if constexpr (AGAIN && !GRADIENT) {
        if (!is_finite(sum)) sum = forward_again(c, g, x, xs, w, ws, result, write);
      }
      sum = finished<GRADIENT>(c, g, x, xs, w, ws, e, result, write, sum);
    }
    wait();
  }
  const bool channels_last = ys.channel == 1;
  const int stored = GRADIENT ? OWN : e.after.stored;
  if (channels_last && g.writes % CHUNK == 0 && ys.x % CHUNK == 0) {
    constexpr int CHUNKS = COLUMNS / CHUNK;
    for (int i = tile.thread; i < ROWS * CHUNKS; i += Tile::THREADS) {
      const int row = i / CHUNKS, column = i % CHUNKS * CHUNK;
      if (!tile.is_result(g, row, column)) continue;
      const float* const sums = &tile.at(row, column);
      const long long to = result_offset(g, ys, tile.first_row + row, tile.first_write + column);
      if (stored == OWN) {
        store_rounded(y + to, packet_at<float, CHUNK>(sums));
      } else {
        store_others<CHUNK>(y, to, sums, stored);
      }
    }
    return;
  }
  for (int i = tile.thread; i < ROWS * COLUMNS; i += Tile::THREADS) {
    const int row = channels_last ? i / COLUMNS : i % ROWS, column = channels_last ? i % COLUMNS : i / ROWS;
    if (!tile.is_result(g, row, column)) continue;
    store_as(y, result_offset(g, ys, tile.first_row + row, tile.first_write + column), tile.at(row, column), stored);
  }
}

}  // namespace ulpgrad
