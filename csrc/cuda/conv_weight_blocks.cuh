// The matrix of a weight gradient as warp groups make it. Plain integer functions, as in conv_index.cuh.
//
// Its rows are the filters' inputs, in blocks of 64 channels under one tap, so that the copy unit brings what a block
// multiplies as it does for a convolution; its columns are outputs. Positions are summed over, in slices of whole
// steps.
#pragma once

#include "conv_box.cuh"

namespace ulpgrad {

constexpr int BLOCK_CHANNELS = 64, BLOCK_POSITIONS = 64;  // of one copy; positions are a step

struct WeightBlocks {
  Columns numbers;  // of a block: its tap, and its channels by 64
  int count;
};

__host__ __device__ constexpr WeightBlocks weight_blocks(int inputs, const Axis& y, const Axis& x) {
  const int chunks = (inputs - 1) / BLOCK_CHANNELS + 1;
  return {columns_of(chunks, x), y.taps * x.taps * chunks};
}

// A block's tap and its first channel. One behind the last is taken for that.
__host__ __device__ constexpr Tap block_at(const WeightBlocks& blocks, int block) {
  const int last = blocks.count - 1;
  const Tap tap = tap_of(static_cast<unsigned>(block < last ? block : last), blocks.numbers);
  return {tap.y, tap.x, tap.channel * BLOCK_CHANNELS};
}

// What is made at one go: two blocks and some outputs, of one slice. Those of a slice are neighbours in time: they read
// the same positions, which the next finds in the cache.
struct WeightOrder {
  TileOrder tiles;
  int slices;

  __host__ __device__ constexpr unsigned count() const { return tiles.count() * static_cast<unsigned>(slices); }
  __host__ __device__ constexpr int slice(unsigned item) const { return static_cast<int>(item / tiles.count()); }
  __host__ __device__ constexpr int block(unsigned item) const {
    return static_cast<int>(tiles.row(item % tiles.count()));
  }
  __host__ __device__ constexpr int output(unsigned item) const { return tiles.column(item % tiles.count()); }
};

// What a block of threads knows of the whole.
struct WeightGather {
  WeightBlocks blocks;
  WeightOrder order;
  Rows rows;
  Box y, x;
  int positions;

  __host__ __device__ constexpr Range range(int slice) const {
    return share_of(slice, order.slices, positions, BLOCK_POSITIONS);
  }
};

__host__ __device__ constexpr WeightGather weight_gather(const Convolution& c, int height, int width, int slices) {
  const Axis y = forward_axis(c.y), x = forward_axis(c.x);
  const WeightBlocks blocks = weight_blocks(c.inputs, y, x);
  return {blocks,        {tile_order(blocks.count, c.outputs, height, width), slices},
          rows_of(y, x), box_of(y),
          box_of(x),     c.images * y.positions * x.positions};
}

// Where the first weight of a block and an output lies in a slice's sums: (output, tap row, tap column, input).
__host__ __device__ constexpr long long weight_offset(const Convolution& c, const Tap& block, int output) {
  const long long tap = static_cast<long long>(block.y) * c.x.kernel + block.x;
  return (static_cast<long long>(output) * c.y.kernel * c.x.kernel + tap) * c.inputs + block.channel;
}

}  // namespace ulpgrad
