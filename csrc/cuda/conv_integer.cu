// Implicit matmul of integers on the matrix units, which multiply bytes and add 32-bit sums that wrap: exact to the
// last bit of what an int32 accumulator holds.
//
// A 16-bit operand is two planes of bytes, the low one without a sign: (256 h + l) (256 h' + l') is 65536 hh' and 256
// times (hl' + lh') and ll'. The products of planes are added to the same sums one after the other, from the highest
// down; where the weight changes, the sums are multiplied by 256.
#include "conv_patches.cuh"

namespace ulpgrad {

// A product of two planes: where they begin, whether they have a sign, and by how many bits the sums are shifted
// before.
struct Pass {
  long long x, w;
  int x_signed, w_signed, shift;
};

struct Passes {
  int count;
  Pass all[4];
};

template <int COLUMNS>
__global__ void __launch_bounds__(COLUMNS * 2, BLOCKS<Byte, COLUMNS>)
    conv_integer(int* y, const Byte* x, const Byte* w, Convolution c, Strides xs, Strides ws, Strides ys,
                 Passes passes) {
  using Tile = MatrixTile<Byte, COLUMNS, false>;
  ULPGRAD_DYNAMIC_SHARED(memory);
  __shared__ Gather g;
  if (threadIdx.x == 0) g = gather_of<false>(c, blockIdx.z);
  __syncthreads();
  const unsigned across = cdiv(g.writes, COLUMNS);
  const unsigned first_row = blockIdx.x / across * Tile::ROWS;
  const int first_write = blockIdx.x % across * COLUMNS, thread = threadIdx.x;

  PatchCopies<false, Tile, Byte> copies(g, xs, ws, first_row, first_write, thread);
  Tile tile;
#pragma unroll 1
  for (int p = 0; p < passes.count; ++p) {
    const Pass& pass = passes.all[p];
    if (pass.shift) {
      tile.for_each(thread,
                    [&](int, int, int& sum) { sum = static_cast<int>(static_cast<unsigned>(sum) << pass.shift); });
    }
    copies.begin(x + pass.x, w + pass.w);
    tile.run(
        memory, cdiv(g.depth, Tile::DEPTH), thread, [&](int step, unsigned char* stage) { copies.copy(step, stage); },
        Signs{pass.x_signed != 0, pass.w_signed != 0});
  }

  // Through shared memory, so that neighbouring threads store what lies side by side.
  constexpr int WIDTH = COLUMNS + 8;
  int* const results = reinterpret_cast<int*>(memory);
  tile.for_each(thread, [&](int row, int column, int sum) { results[row * WIDTH + column] = sum; });
  __syncthreads();
  const bool channels_last = ys.channel == 1;
  for (int i = thread; i < Tile::ROWS * COLUMNS; i += Tile::THREADS) {
    const int row = channels_last ? i / COLUMNS : i % Tile::ROWS, column = channels_last ? i % COLUMNS : i / Tile::ROWS;
    if (first_row + row >= static_cast<unsigned>(g.count) || first_write + column >= g.writes) continue;
    y[result_offset(g, ys, first_row + row, first_write + column)] = results[row * WIDTH + column];
  }
}

}  // namespace ulpgrad
