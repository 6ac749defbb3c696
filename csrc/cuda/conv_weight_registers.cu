// The weight gradient in register tiles: rows are the taps' channels, columns outputs, and sums run over the positions
// of all images, which are cut into slices so that enough blocks have work.
#include "conv_index.cuh"
#include "register_tile.cuh"

namespace ulpgrad {

template <class T>
__global__ void __launch_bounds__(256)
    conv_weight_registers(Wide<T>* parts, const T* g, const T* x, Convolution c, Strides gs, Strides xs, int slices) {
  using S = Wide<T>;
  using Tile = RegisterTile<S>;
  __shared__ typename Tile::Memory memory;
  const Axis ay = forward_axis(c.y), ax = forward_axis(c.x);
  const Rows positions = rows_of(ay, ax);
  const Columns columns = columns_of(c.inputs, ax);
  const int depth = ay.taps * ax.taps * c.inputs, thread = threadIdx.x;
  const int group = blockIdx.z / slices, slice = blockIdx.z % slices;
  const int first_row = blockIdx.x * Tile::ROWS, first_column = blockIdx.y * Tile::COLUMNS;
  const Range range = share_of(slice, slices, c.images * ay.positions * ax.positions, Tile::DEPTH);

  // A thread loads four rows and two columns of one position. Neighbouring threads load neighbouring channels where
  // these lie side by side, else neighbouring positions.
  constexpr int PIXELS = Tile::LOADED_ROWS, GRADIENTS = Tile::LOADED_COLUMNS, LANES = Tile::THREADS / Tile::DEPTH;
  const bool channels_last = xs.channel == 1;
  const int lane = channels_last ? thread % LANES : thread / Tile::DEPTH;
  const int position_step = channels_last ? thread / LANES : thread % Tile::DEPTH;
  Tap taps[PIXELS];
#pragma unroll
  for (int i = 0; i < PIXELS; ++i) taps[i] = tap_of(first_row + lane + i * LANES, columns);
  S pixels[PIXELS], gradients[GRADIENTS];

  const auto load = [&](int step) {
    const int position = range.first + step + position_step;
    const bool is_there = position < range.last;
    const Place p = place_of(is_there ? position : 0, positions);
#pragma unroll
    for (int i = 0; i < PIXELS; ++i) {
      const int y = read_at(ay, p.y, taps[i].y), column = read_at(ax, p.x, taps[i].x);
      const bool seen =
          is_there && first_row + lane + i * LANES < depth && inside(y, ay.size) && inside(column, ax.size);
      pixels[i] = seen ? widen(x[offset_of(xs, p.image, group * c.inputs + taps[i].channel, y, column)]) : S(0);
    }
#pragma unroll
    for (int i = 0; i < GRADIENTS; ++i) {
      const int output = first_column + lane + i * LANES;
      const bool seen = is_there && output < c.outputs;
      gradients[i] = seen ? widen(g[offset_of(gs, p.image, group * c.outputs + output, p.y, p.x)]) : S(0);
    }
  };
  const auto store = [&](int buffer) {
#pragma unroll
    for (int i = 0; i < PIXELS; ++i) memory.a[buffer][position_step][lane + i * LANES] = pixels[i];
#pragma unroll
    for (int i = 0; i < GRADIENTS; ++i) memory.b[buffer][position_step][lane + i * LANES] = gradients[i];
  };

  Tile tile;
  tile.run(memory, range.last - range.first, thread, load, store);

#pragma unroll
  for (int j = 0; j < Tile::OWN_COLUMNS; ++j) {
    const int output = first_column + Tile::own_column(thread) + j;
    S* own = parts + (static_cast<long long>(slice * c.groups + group) * c.outputs + output) * depth;
#pragma unroll
    for (int i = 0; i < Tile::OWN_ROWS; ++i) {
      const int row = first_row + Tile::own_row(thread) + i;
      if (output < c.outputs && row < depth) own[row] = tile.sums[i][j];
    }
  }
}

}  // namespace ulpgrad
