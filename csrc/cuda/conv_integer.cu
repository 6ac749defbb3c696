// Implicit matmul of integers on the matrix units, which multiply bytes and add 32-bit sums that wrap: exact to the
// last bit of what an int32 accumulator holds.
//
// A 16-bit operand is two planes of bytes, the low one without a sign: (256 h + l) (256 h' + l') is 65536 hh' and 256
// times (hl' + lh') and ll'. The products of planes are added to the same sums one after the other, from the highest
// down; where the weight changes, the sums are multiplied by 256. Exact sums, of 64 bits, are kept in memory between
// these products, each of which fits 32 bits.
//
// What is written is the sums, or the codes of the result's format that they become.
#include "conv_codes.cuh"
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

// y: int or long long for sums, else codes. `exact`: room for the sums of all tiles in 64 bits, or nothing.
template <int COLUMNS>
__global__ void __launch_bounds__(COLUMNS * 2, BLOCKS<Byte, COLUMNS>)
    conv_integer(void* y, const Byte* x, const Byte* w, Convolution c, Strides xs, Strides ws, Strides ys,
                 Passes passes, long long* exact, const long long* bias, const int* multiplier, const int* shift,
                 const unsigned* words, unsigned char* outside, Rule rule) {
  using Tile = MatrixTile<Byte, COLUMNS, false>;
  ULPGRAD_DYNAMIC_SHARED(memory);
  __shared__ Gather g;
  __shared__ Codes codes;
  if (threadIdx.x == 0) {
    g = gather_of<false>(c, blockIdx.z);
    codes = {bias, multiplier, shift, words, outside, rule};
  }
  __syncthreads();
  const unsigned across = cdiv(g.writes, COLUMNS);
  const unsigned first_row = blockIdx.x / across * Tile::ROWS;
  const int first_write = blockIdx.x % across * COLUMNS, thread = threadIdx.x;
  if (exact) exact += (static_cast<long long>(blockIdx.z) * gridDim.x + blockIdx.x) * Tile::ROWS * COLUMNS;

  PatchCopies<false, Tile, Byte> copies(g, xs, ws, first_row, first_write, thread);
  Tile tile;
#pragma unroll 1
  for (int p = 0; p < passes.count; ++p) {
    const Pass& pass = passes.all[p];
    if (exact && p) {
      tile.for_each(thread, [&](int row, int column, int& sum) {
        long long& kept = exact[row * COLUMNS + column];
        kept = shifted_left((p == 1 ? 0 : kept) + sum, pass.shift);
        sum = 0;
      });
    } else if (pass.shift) {
      tile.for_each(thread,
                    [&](int, int, int& sum) { sum = static_cast<int>(static_cast<unsigned>(sum) << pass.shift); });
    }
    copies.begin(x + pass.x, w + pass.w);
    tile.run(
        memory, cdiv(g.depth, Tile::DEPTH), thread, [&](int step, unsigned char* stage) { copies.copy(step, stage); },
        Signs{pass.x_signed != 0, pass.w_signed != 0});
  }

  // Through memory that all threads see, so that neighbouring ones store what lies side by side.
  constexpr int WIDTH = COLUMNS + 8;
  int* const results = reinterpret_cast<int*>(memory);
  if (exact) {
    tile.for_each(thread, [&](int row, int column, int sum) { exact[row * COLUMNS + column] += sum; });
  } else {
    tile.for_each(thread, [&](int row, int column, int sum) { results[row * WIDTH + column] = sum; });
  }
  __syncthreads();
  const bool channels_last = ys.channel == 1;
#pragma unroll 1
  for (int i = thread; i < Tile::ROWS * COLUMNS; i += Tile::THREADS) {
    const int row = channels_last ? i / COLUMNS : i % Tile::ROWS, column = channels_last ? i % COLUMNS : i / Tile::ROWS;
    const unsigned position = first_row + row;
    const int write = first_write + column;
    if (position >= static_cast<unsigned>(g.count) || write >= g.writes) continue;
    const long long sum = exact ? exact[row * COLUMNS + column] : results[row * WIDTH + column];
    const long long at = result_offset(g, ys, position, write);
    if (!codes.rule.is_sum) {
      const long long word_at = codes.words ? result_offset(g, codes.rule.words, position, write) : 0;
      store_code(codes, y, at, word_at, g.write_channel + write, sum);
    } else if (codes.rule.bytes == 4) {
      static_cast<int*>(y)[at] = static_cast<int>(sum);
    } else {
      static_cast<long long*>(y)[at] = sum;
    }
  }
}

}  // namespace ulpgrad
