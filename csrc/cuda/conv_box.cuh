// Where the copy unit of sm_90 (TMA) reads, in its im2col mode, what a convolution gathers. Plain integer functions, as
// in conv_index.cuh.
//
// The unit walks along base coordinates: those that the windows' lowest tap reads, in steps of the stride, from a lower
// corner of the images to an upper one (row after row, image after image), and adds the offset of a tap to each. What
// then lies beside the image is zero. A tile of positions under one tap is one copy. (PTX ISA, "Im2col mode".)
#pragma once

#include "conv_gather.cuh"

namespace ulpgrad {

// One axis of the walk. A position's base is lower + position * stride, and tap t is read at first + t * step behind
// it.
struct Box {
  int lower, stride, first, step;
};

__host__ __device__ constexpr Box box_of(const Axis& a) {
  const int lowest = a.step < 0 ? (a.taps - 1) * a.step : 0;  // of the taps' distances from the first
  return {a.first + lowest, a.stride, -lowest, a.step};
}

__host__ __device__ constexpr int base_at(const Box& b, int position) { return b.lower + position * b.stride; }

__host__ __device__ constexpr int tap_offset(const Box& b, int tap) { return b.first + tap * b.step; }

// The corner behind which the walk turns, as a distance from the last pixel.
__host__ __device__ constexpr int upper_of(const Box& b, const Axis& a) {
  return base_at(b, a.positions - 1) - (a.size - 1);
}

// Tiles of rows x columns in the order in which they are made: those that read the same rows are neighbours in time, so
// that what one has read, the next finds in the cache. Block `first` of `step` makes every step-th.
struct TileOrder {
  unsigned rows, across;  // tiles
  int height, width;      // of one

  __host__ __device__ constexpr unsigned count() const { return rows * across; }
  __host__ __device__ constexpr unsigned row(unsigned tile) const { return tile / across * height; }
  __host__ __device__ constexpr int column(unsigned tile) const { return static_cast<int>(tile % across) * width; }
};

__host__ __device__ constexpr TileOrder tile_order(int rows, int columns, int height, int width) {
  const unsigned high = static_cast<unsigned>(height);
  return {(static_cast<unsigned>(rows) + high - 1) / high, static_cast<unsigned>(cdiv(columns, width)), height, width};
}

// Stages of a pipeline in turn, and the parity of the round: barriers of a stage are waited for with it.
template <int STAGES>
struct Ring {
  int stage = 0;
  unsigned parity = 0;

  __host__ __device__ constexpr void next() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

}  // namespace ulpgrad
