// The weight gradient on the matrix units: sums over positions, whose channels lie side by side, so that both operands
// come to shared memory as they lie and are transposed on their way into registers. Slices of the positions are summed
// apart.
#include "conv_index.cuh"
#include "matrix_tile.cuh"

namespace ulpgrad {

template <class T, int COLUMNS>
__global__ void __launch_bounds__(COLUMNS * 2)
    conv_weight_matrix(float* parts, const T* g, const T* x, Convolution c, Strides gs, Strides xs, int slices) {
  using Tile = MatrixTile<T, COLUMNS, true>;
  constexpr int CHUNK = Tile::CHUNK;
  ULPGRAD_DYNAMIC_SHARED(memory);
  const Axis ay = forward_axis(c.y), ax = forward_axis(c.x);
  const Rows positions = rows_of(ay, ax);
  const int depth = ay.taps * ax.taps * c.inputs, thread = threadIdx.x;
  const int group = blockIdx.z / slices, slice = blockIdx.z % slices;
  const unsigned across = cdiv(c.outputs, Tile::ROWS);  // tiles of outputs, which are neighbours in time
  const int first_output = blockIdx.x % across * Tile::ROWS, first_column = blockIdx.x / across * COLUMNS;
  const Range range = share_of(slice, slices, c.images * ay.positions * ax.positions, Tile::DEPTH);

  // A thread copies chunks of the same channels for several positions: of g, and of x through one tap.
  constexpr int G_STEP = Tile::THREADS / Tile::A_LINE, X_STEP = Tile::THREADS / Tile::B_LINE;
  const int output = first_output + thread % Tile::A_LINE * CHUNK,
            column = first_column + thread % Tile::B_LINE * CHUNK;
  const Tap tap = tap_of(column, columns_of(c.inputs, ax));
  const auto copy = [&](int step, unsigned char* stage) {
    const int first = range.first + step * Tile::DEPTH;
#pragma unroll
    for (int i = 0; i < Tile::DEPTH; i += G_STEP) {
      const int line = thread / Tile::A_LINE + i, position = first + line;
      const bool is_there = position < range.last && output < c.outputs;
      const Place p = place_of(is_there ? position : 0, positions);
      const long long from = is_there ? offset_of(gs, p.image, group * c.outputs + output, p.y, p.x) : 0;
      copy_async(Tile::chunk_of_a_tile(stage, line, thread % Tile::A_LINE), g + from, is_there);
    }
#pragma unroll
    for (int i = 0; i < Tile::DEPTH; i += X_STEP) {
      const int line = thread / Tile::B_LINE + i, position = first + line;
      const Place p = place_of(position < range.last ? position : 0, positions);
      const int y = read_at(ay, p.y, tap.y), pixel = read_at(ax, p.x, tap.x);
      const bool is_there = position < range.last && column < depth && inside(y, ay.size) && inside(pixel, ax.size);
      const long long from = is_there ? offset_of(xs, p.image, group * c.inputs + tap.channel, y, pixel) : 0;
      copy_async(Tile::chunk_of_b_tile(stage, line, thread % Tile::B_LINE), x + from, is_there);
    }
  };
  Tile tile;
  tile.run(memory, steps_of(range, Tile::DEPTH), thread, copy);

  float* const own = parts + static_cast<long long>(slice * c.groups + group) * c.outputs * depth;
  tile.for_each(thread, [&](int row, int at, float sum) {
    if (first_output + row >= c.outputs || first_column + at >= depth) return;
    own[static_cast<long long>(first_output + row) * depth + first_column + at] = sum;
  });
}

}  // namespace ulpgrad
