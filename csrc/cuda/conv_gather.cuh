// Convolution as a product of matrices that are never written (implicit matmul): rows are positions, columns the
// results' channels, and what is summed over runs through the taps of the filter and the channels that are read.
//
// The input gradient is the same product, one for each phase of the strides (see conv_index.cuh): it reads g where the
// forward pass reads x, and filters from the side of their inputs.
#pragma once

#include "conv_epilogue.cuh"
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

// What a row reads through the first tap: an offset, and the coordinates, which may lie on padding. Rows and columns
// past the last are taken for the first: what they read is there, and their results are not stored.
struct Row {
  long long offset;
  int y, x;
};

__device__ inline Row row_of(const Gather& g, const Strides& s, unsigned row) {
  const Place place = place_of(row < static_cast<unsigned>(g.count) ? row : 0, g.rows);
  const int y = read_at(g.y, place.y, 0), x = read_at(g.x, place.x, 0);
  return {offset_of(s, place.image, g.read_channel, 0, 0) + y * s.y + x * s.x, y, x};
}

// Offset of a result's channel (within the group) in the filters.
template <bool GRADIENT>
__device__ inline long long column_of(const Gather& g, const Strides& s, int write) {
  const int channel = write < g.writes ? write : 0;
  return GRADIENT ? offset_of(s, g.read_channel, channel, 0, 0) : offset_of(s, g.write_channel + channel, 0, 0, 0);
}

// What a step of the sums (a tap's channel) adds to the offsets of rows, and to those of columns: the same for all.
struct Step {
  long long read, weight;
  int y, x, channel;
};

template <bool GRADIENT>
__device__ inline Step step_of(const Gather& g, const Strides& s, const Strides& ws, int step) {
  const Tap tap = tap_of(step, g.columns);
  const int y = tap.y * g.y.step, x = tap.x * g.x.step;
  const int tap_y = g.y.tap_first + tap.y * g.y.tap_step, tap_x = g.x.tap_first + tap.x * g.x.tap_step;
  return {tap.channel * s.channel + y * s.y + x * s.x,
          tap.channel * (GRADIENT ? ws.image : ws.channel) + tap_y * ws.y + tap_x * ws.x, y, x, tap.channel};
}

// Whether a row sees the image through a step's tap, and not padding.
__device__ inline bool sees(const Gather& g, const Row& row, const Step& step) {
  return inside(row.y + step.y, g.y.size) && inside(row.x + step.x, g.x.size);
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

// The same of a result of the forward pass, for units that make NaN of infinities by themselves.
template <class T>
__device__ __attribute__((noinline)) Wide<T> forward_again(const Convolution& c, const Gather& g, const T* x,
                                                           const Strides& xs, const T* w, const Strides& ws,
                                                           unsigned row, int write) {
  const Place place = place_of(row, g.rows);
  return forward_sum(c, x, xs, w, ws, place.image, g.write_channel + write, place.y, place.x);
}

// A sum with what is left to do before it is rounded: its epilogue, or what is said above.
template <bool GRADIENT, class T>
__device__ inline Wide<T> finished(const Convolution& c, const Gather& g, const T* x, const Strides& xs, const T* w,
                                   const Strides& ws, const Epilogue<T>& e, unsigned row, int write, Wide<T> sum) {
  if constexpr (GRADIENT) {
    return is_finite(sum) ? sum : summed_again(c, g, x, xs, w, ws, row, write);
  } else {
    const auto offset = [&] { return result_offset(g, e.after.residual, row, write); };
    return with_epilogue(e, g.write_channel + write, offset, sum);
  }
}

}  // namespace ulpgrad
