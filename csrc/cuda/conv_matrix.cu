// Implicit matmul on the matrix units: the tile of patches is copied from the images straight into shared memory, 16
// bytes of channels at a time, and multiplied by whole warps. Channels lie side by side, in multiples of as many.
#include "conv_patches.cuh"
#include "packet.cuh"

namespace ulpgrad {

template <class T, bool GRADIENT, int COLUMNS>
__global__ void __launch_bounds__(COLUMNS * 2, BLOCKS<T, COLUMNS>)
    conv_matrix(T* y, const T* x, const T* w, const T* bias, const T* scale, const T* residual, Convolution c,
                Strides xs, Strides ws, Strides ys, After after) {
  using Tile = MatrixTile<T, COLUMNS, false>;
  constexpr int CHUNK = Tile::CHUNK;
  ULPGRAD_DYNAMIC_SHARED(memory);
  __shared__ Gather g;
  __shared__ Epilogue<T> e;
  if (threadIdx.x == 0) g = gather_of<GRADIENT>(c, blockIdx.z), e = {bias, scale, residual, after};
  __syncthreads();
  // Blocks that read the same rows are neighbours in time: what one has read, the next finds in the cache.
  const unsigned across = cdiv(g.writes, COLUMNS);
  const unsigned first_row = blockIdx.x / across * Tile::ROWS;
  const int first_write = blockIdx.x % across * COLUMNS, thread = threadIdx.x;
  if (first_row >= static_cast<unsigned>(g.count)) return;

  PatchCopies<GRADIENT, Tile, T> copies(g, xs, ws, first_row, first_write, thread);
  copies.begin(x, w);
  Tile tile;
  tile.run(memory, cdiv(g.depth, Tile::DEPTH), thread,
           [&](int step, unsigned char* stage) { copies.copy(step, stage); });

  // Sums go through shared memory: there they are finished by a short loop, and neighbouring threads store what lies
  // side by side. Lines are padded so that the rows of a fragment begin in different banks.
  constexpr int WIDTH = COLUMNS + 8;
  float* const results = reinterpret_cast<float*>(memory);
  tile.for_each(thread, [&](int row, int column, float sum) { results[row * WIDTH + column] = sum; });
  __syncthreads();
  const auto is_result = [&](int row, int column) {
    return first_row + row < static_cast<unsigned>(g.count) && first_write + column < g.writes;
  };
  constexpr bool IN_PARTS = sizeof(T) == 4;  // see Tf32Pair
  if (GRADIENT || IN_PARTS || !e.is_nothing()) {
    const bool by_channels =
        GRADIENT || !residual || after.residual.channel == 1;  // neighbouring threads read neighbours
#pragma unroll 1
    for (int i = thread; i < Tile::ROWS * COLUMNS; i += Tile::THREADS) {
      const int row = by_channels ? i / COLUMNS : i % Tile::ROWS, column = by_channels ? i % COLUMNS : i / Tile::ROWS;
      if (!is_result(row, column)) continue;
      float& sum = results[row * WIDTH + column];
      if constexpr (IN_PARTS && !GRADIENT) {
        if (!is_finite(sum)) sum = forward_again(c, g, x, xs, w, ws, first_row + row, first_write + column);
      }
      sum = finished<GRADIENT>(c, g, x, xs, w, ws, e, first_row + row, first_write + column, sum);
    }
    __syncthreads();
  }
  const bool channels_last = ys.channel == 1;
  const int stored = GRADIENT ? OWN : after.stored;
  if (stored == OWN && channels_last && g.writes % CHUNK == 0 && ys.x % CHUNK == 0) {
    constexpr int CHUNKS = COLUMNS / CHUNK;
    for (int i = thread; i < Tile::ROWS * CHUNKS; i += Tile::THREADS) {
      const int row = i / CHUNKS, column = i % CHUNKS * CHUNK;
      if (!is_result(row, column)) continue;
      const Packet<float, CHUNK> sums = packet_at<float, CHUNK>(results + row * WIDTH + column);
      Packet<T, CHUNK> packet;
#pragma unroll
      for (int j = 0; j < CHUNK; ++j) packet.values[j] = narrow<T>(sums.values[j]);
      *reinterpret_cast<Packet<T, CHUNK>*>(y + result_offset(g, ys, first_row + row, first_write + column)) = packet;
    }
    return;
  }
  for (int i = thread; i < Tile::ROWS * COLUMNS; i += Tile::THREADS) {
    const int row = channels_last ? i / COLUMNS : i % Tile::ROWS, column = channels_last ? i % COLUMNS : i / Tile::ROWS;
    if (!is_result(row, column)) continue;
    store_as(y, result_offset(g, ys, first_row + row, first_write + column), results[row * WIDTH + column], stored);
  }
}

}  // namespace ulpgrad
