// Convolution as a product of matrices that are never written (implicit matmul): rows are positions, columns the
// results' channels, and what is summed over runs through the taps of the filter and the channels that are read.
//
// The input gradient is the same product, one for each phase of the strides (see conv_index.cuh): it reads g where the
// forward pass reads x, and filters from the side of their inputs.
#pragma once

#include "conv_sums.cuh"

namespace ulpgrad {

struct Gather {
  Axis y, x;
  Rows rows;
  Columns columns;
  int count;                        // rows
  int depth;                        // of the sums
  int reads, writes;                // channels of one group
  int read_channel, write_channel;  // the group's first ones
};

// `part` numbers groups, and phases within them.
template <bool GRADIENT>
__device__ inline Gather gather_of(const Convolution& c, int part) {
  Gather g;
  int group = part;
  if constexpr (GRADIENT) {
    const int wide = phases(c.x), all = phases(c.y) * wide;
    group = part / all;
    g.y = gradient_axis(c.y, part % all / wide);
    g.x = gradient_axis(c.x, part % wide);
    g.reads = c.outputs, g.writes = c.inputs;
  } else {
    g.y = forward_axis(c.y);
    g.x = forward_axis(c.x);
    g.reads = c.inputs, g.writes = c.outputs;
  }
  g.rows = rows_of(g.y, g.x);
  g.columns = columns_of(g.reads, g.x);
  g.count = c.images * g.y.positions * g.x.positions;
  g.depth = g.y.taps * g.x.taps * g.reads;
  g.read_channel = group * g.reads, g.write_channel = group * g.writes;
  return g;
}

// Where the row's image begins, and its place on it. A row past the end lies outside every image: it reads zeros.
struct Row {
  long long image;
  int y, x;
};

__device__ inline Row row_of(const Gather& g, const Strides& s, unsigned row) {
  if (row >= static_cast<unsigned>(g.count)) return {0, -1, -1};
  const Place place = place_of(row, g.rows);
  return {place.image * s.image + g.read_channel * s.channel, place.y, place.x};
}

// Offset of what a row reads through a tap, or -1 where that is padding.
__device__ inline long long read_offset(const Gather& g, const Strides& s, const Row& row, const Tap& tap) {
  const int y = read_at(g.y, row.y, tap.y), x = read_at(g.x, row.x, tap.x);
  if (row.y < 0 || !inside(y, g.y.size) || !inside(x, g.x.size)) return -1;
  return row.image + y * s.y + x * s.x + tap.channel * s.channel;
}

// Offset of the weight between a tap's channel and a result's channel (within the group).
template <bool GRADIENT>
__device__ inline long long weight_offset(const Gather& g, const Strides& s, int write, const Tap& tap) {
  const int y = g.y.tap_first + tap.y * g.y.tap_step, x = g.x.tap_first + tap.x * g.x.tap_step;
  return GRADIENT ? offset_of(s, g.read_channel + tap.channel, write, y, x)
                  : offset_of(s, g.write_channel + write, tap.channel, y, x);
}

// Where a row's result of a channel of the group is written.
__device__ inline long long result_offset(const Gather& g, const Strides& s, unsigned row, int write) {
  const Place place = place_of(row, g.rows);
  return offset_of(s, place.image, g.write_channel + write, g.y.target_first + place.y * g.y.target_step,
                   g.x.target_first + place.x * g.x.target_step);
}

// A gradient that is not finite is summed again by the definition: where a tile reads zeros beside the image, an
// infinite weight has made NaN of them, which the definition does not meet. A call, since it is rare.
template <class T>
__device__ __attribute__((noinline)) Wide<T> summed_again(const Convolution& c, const Gather& g, const T* x,
                                                          const Strides& xs, const T* w, const Strides& ws,
                                                          unsigned row, int write) {
  const Place place = place_of(row, g.rows);
  return gradient_sum(c, x, xs, w, ws, place.image, g.write_channel + write,
                      g.y.target_first + place.y * g.y.target_step, g.x.target_first + place.x * g.x.target_step);
}

// A sum with what is left to do before it is rounded: bias (if any) and activation, or what is said above.
template <bool GRADIENT, class T>
__device__ inline Wide<T> finished(const Convolution& c, const Gather& g, const T* x, const Strides& xs, const T* w,
                                   const Strides& ws, const T* bias, int activation, unsigned row, int write,
                                   Wide<T> sum) {
  if constexpr (GRADIENT) {
    return is_finite(sum) ? sum : summed_again(c, g, x, xs, w, ws, row, write);
  } else {
    if (bias) sum += widen(bias[g.write_channel + write]);
    return activated(sum, activation);
  }
}

}  // namespace ulpgrad
