// Where a convolution reads and writes. Plain integer functions: kernels use them, and the host's compiler tests them.
//
// Forward and input gradient are the same gather, one axis of the image at a time: position p reads, for tap t, the
// coordinate p * stride + first + t * step. For the input gradient the pixels of one phase (those of equal remainder by
// the stride) are the positions: every second, third, ... tap of the filter reaches them, and none of the others does.
#pragma once

#include "device.cuh"

namespace ulpgrad {

// One axis of a convolution as it is given: windows of `kernel` taps on an image of `size`.
struct Window {
  int size, kernel, stride, padding, dilation, positions;
};

struct Convolution {
  int images, groups, inputs, outputs;  // channels of one group
  Window y, x;
};

// Distances, in elements, between neighbours along each axis of an array of images or filters: any layout.
struct Strides {
  long long image, channel, y, x;  // of filters: output, channel, row, column
};

// One axis of a gather. A read outside [0, size) is padding.
struct Axis {
  int size, positions, taps;
  int stride, first, step;        // of what is read
  int target_first, target_step;  // position p is written to target_first + p * target_step
  int tap_first, tap_step;        // tap t is the filter's tap_first + t * tap_step
};

__host__ __device__ constexpr int read_at(const Axis& a, int position, int tap) {
  return position * a.stride + a.first + tap * a.step;
}

__host__ __device__ constexpr bool inside(int coordinate, int size) {
  return static_cast<unsigned>(coordinate) < static_cast<unsigned>(size);
}

__host__ __device__ constexpr int greatest_divisor(int a, int b) {
  while (b) {
    const int rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

// Positions read the image around them.
__host__ __device__ constexpr Axis forward_axis(const Window& w) {
  return {w.size, w.positions, w.kernel, w.stride, -w.padding, w.dilation, 0, 1, 0, 1};
}

__host__ __device__ constexpr int phases(const Window& w) { return w.stride < w.size ? w.stride : w.size; }

// Pixels phase, phase + stride, ... gather the positions that have read them. Pixel y was read by position o through
// tap t where o * stride = y + padding - t * dilation: possible for every (stride / divisor)-th tap, if for any.
__host__ __device__ constexpr Axis gradient_axis(const Window& w, int phase) {
  const int divisor = greatest_divisor(w.stride, w.dilation), cycle = w.stride / divisor;
  const int shift = static_cast<int>((static_cast<long long>(phase) + w.padding) % w.stride);
  int tap = 0;
  while (tap < cycle && tap < w.kernel && (static_cast<long long>(tap) * w.dilation - shift) % w.stride != 0) {
    ++tap;
  }
  const bool reached = tap < cycle && tap < w.kernel;
  const long long from = static_cast<long long>(phase) + w.padding - static_cast<long long>(tap) * w.dilation;
  return {w.positions,
          phase < w.size ? (w.size - 1 - phase) / w.stride + 1 : 0,
          reached ? (w.kernel - 1 - tap) / cycle + 1 : 0,
          1,
          reached ? static_cast<int>(from / w.stride) : 0,  // exact: the remainder is zero
          -(w.dilation / divisor),
          phase,
          w.stride,
          tap,
          cycle};
}

// Divides 31-bit numbers by a fixed one with a multiplication (Granlund and Montgomery, PLDI 1994, figure 4.1): one
// division when it is made, none in the loop.
struct Divisor {
  unsigned value, multiplier, shift;
};

__host__ __device__ constexpr Divisor divisor_of(unsigned value) {
  value = value ? value : 1;  // a size of zero: nothing is divided
  unsigned shift = 0;
  while ((1u << shift) < value) ++shift;
  const unsigned long long power = 1ull << shift;
  return {value, static_cast<unsigned>((power - value) * (1ull << 32) / value + 1), shift};
}

__host__ __device__ constexpr unsigned quotient(unsigned n, const Divisor& d) {
  const unsigned high = static_cast<unsigned>(static_cast<unsigned long long>(n) * d.multiplier >> 32);
  return (high + n) >> d.shift;
}

// A row of the matrix of positions: rows are (image, y, x), the last fastest.
struct Place {
  int image, y, x;
};

struct Rows {
  Divisor plane, line;
};

__host__ __device__ constexpr Rows rows_of(const Axis& y, const Axis& x) {
  return {divisor_of(static_cast<unsigned>(y.positions * x.positions)), divisor_of(static_cast<unsigned>(x.positions))};
}

__host__ __device__ constexpr Place place_of(unsigned row, const Rows& rows) {
  const unsigned image = quotient(row, rows.plane), rest = row - image * rows.plane.value;
  const unsigned y = quotient(rest, rows.line);
  return {static_cast<int>(image), static_cast<int>(y), static_cast<int>(rest - y * rows.line.value)};
}

// A column of the matrix of patches: columns are (tap row, tap column, channel), the last fastest.
struct Tap {
  int y, x, channel;
};

struct Columns {
  Divisor channels, taps;
};

__host__ __device__ constexpr Columns columns_of(int channels, const Axis& x) {
  return {divisor_of(static_cast<unsigned>(channels)), divisor_of(static_cast<unsigned>(x.taps))};
}

__host__ __device__ constexpr Tap tap_of(unsigned column, const Columns& columns) {
  const unsigned tap = quotient(column, columns.channels), y = quotient(tap, columns.taps);
  return {static_cast<int>(y), static_cast<int>(tap - y * columns.taps.value),
          static_cast<int>(column - tap * columns.channels.value)};
}

// 64 bits: an array may have more than 2^31 elements, and strides lead past them.
__host__ __device__ constexpr long long offset_of(const Strides& s, int image, int channel, int y, int x) {
  return image * s.image + channel * s.channel + y * s.y + x * s.x;
}

// The most positions of all images, and values of a filter, that may be numbered: a tile that reaches behind the last
// of them still has numbers of 31 bits.
constexpr int MOST_NUMBERED = 2147483647 - 256;

// The share of `slice` when `count` is cut into `slices` runs of whole blocks: [first, last).
struct Range {
  int first, last;
};

__host__ __device__ constexpr Range share_of(int slice, int slices, int count, int block) {
  const long long blocks = (static_cast<long long>(count) + block - 1) / block;
  const long long first = blocks * slice / slices * block, last = blocks * (slice + 1) / slices * block;
  return {static_cast<int>(first < count ? first : count), static_cast<int>(last < count ? last : count)};
}

// Runs of `block` in a share, the last of which may be shorter.
__host__ __device__ constexpr int steps_of(const Range& range, int block) {
  return range.last > range.first ? (range.last - range.first - 1) / block + 1 : 0;
}

}  // namespace ulpgrad
