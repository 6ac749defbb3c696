// Register tiles: a thread makes 8 x 4 results, pixels and weights come in packets of neighbouring channels, and the
// next tile is on its way while this one is multiplied.
#include "conv_gather.cuh"
#include "register_tile.cuh"

namespace ulpgrad {

// `packets`: channels lie side by side in x and w, in fours and aligned.
template <class T, bool GRADIENT>
__global__ void __launch_bounds__(256, sizeof(Wide<T>) < 8 ? 2 : 1)
    conv_registers(T* y, const T* x, const T* w, const T* bias, const T* scale, const T* residual, Convolution c,
                   Strides xs, Strides ws, Strides ys, After after, int packets) {
  using S = Wide<T>;
  using Tile = RegisterTile<S>;
  __shared__ typename Tile::Memory memory;
  __shared__ Gather g;  // one for the block: a thread's registers are for sums
  __shared__ Epilogue<T> e;
  if (threadIdx.x == 0) g = gather_of<GRADIENT>(c, blockIdx.z), e = {bias, scale, residual, after};
  __syncthreads();
  // Blocks that read the same rows are neighbours in time: what one has read, the next finds in the cache.
  const unsigned across = cdiv(g.writes, Tile::COLUMNS);
  const unsigned first_row = blockIdx.x / across * Tile::ROWS;
  const int first_write = blockIdx.x % across * Tile::COLUMNS, thread = threadIdx.x;
  if (first_row >= static_cast<unsigned>(g.count)) return;

  // A thread loads four steps of one row and two of one column. Neighbouring threads load neighbouring channels, or
  // pixels.
  constexpr int PIXELS = Tile::LOADED_ROWS, WEIGHTS = Tile::LOADED_COLUMNS;
  const int row_step = packets ? thread % 2 * PIXELS : thread / Tile::ROWS * PIXELS;
  const int loaded_row = packets ? thread / 2 : thread % Tile::ROWS;
  const int column_step = thread % 4 * WEIGHTS, loaded_column = thread / 4;
  const Row row = row_of(g, xs, first_row + loaded_row);
  const long long column = column_of<GRADIENT>(g, ws, first_write + loaded_column);
  S pixels[PIXELS], weights[WEIGHTS];

  const auto load = [&](int depth) {
    const int at = depth + row_step, from = depth + column_step;
    if (packets) {
      Packet<T, PIXELS> p = {};
      Packet<T, WEIGHTS> q = {};
      if (at < g.depth) {
        const Step step = step_of<GRADIENT>(g, xs, ws, at);
        if (sees(g, row, step)) p = packet_at<T, PIXELS>(x + row.offset + step.read);
      }
      if (from < g.depth) q = packet_at<T, WEIGHTS>(w + column + step_of<GRADIENT>(g, xs, ws, from).weight);
#pragma unroll
      for (int i = 0; i < PIXELS; ++i) pixels[i] = widen(p.values[i]);
#pragma unroll
      for (int i = 0; i < WEIGHTS; ++i) weights[i] = widen(q.values[i]);
      return;
    }
#pragma unroll
    for (int i = 0; i < PIXELS; ++i) {
      pixels[i] = 0;
      if (at + i >= g.depth) continue;
      const Step step = step_of<GRADIENT>(g, xs, ws, at + i);
      if (sees(g, row, step)) pixels[i] = widen(x[row.offset + step.read]);
    }
#pragma unroll
    for (int i = 0; i < WEIGHTS; ++i) {
      weights[i] = 0;
      if (from + i < g.depth) weights[i] = widen(w[column + step_of<GRADIENT>(g, xs, ws, from + i).weight]);
    }
  };
  const auto store = [&](int buffer) {
#pragma unroll
    for (int i = 0; i < PIXELS; ++i) memory.a[buffer][row_step + i][loaded_row] = pixels[i];
#pragma unroll
    for (int i = 0; i < WEIGHTS; ++i) memory.b[buffer][column_step + i][loaded_column] = weights[i];
  };

  Tile tile;
  tile.run(memory, g.depth, thread, load, store);

#pragma unroll
  for (int i = 0; i < Tile::OWN_ROWS; ++i) {
    const unsigned own_row = first_row + Tile::own_row(thread) + i;
#pragma unroll
    for (int j = 0; j < Tile::OWN_COLUMNS; ++j) {
      const int own_write = first_write + Tile::own_column(thread) + j;
      if (own_row < static_cast<unsigned>(g.count) && own_write < g.writes) {
        const S result = finished<GRADIENT>(c, g, x, xs, w, ws, e, own_row, own_write, tile.sums[i][j]);
        store_as(y, result_offset(g, ys, own_row, own_write), result, GRADIENT ? OWN : after.stored);
      }
    }
  }
}

}  // namespace ulpgrad
