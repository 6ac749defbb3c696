// One result of a convolution or of a gradient, summed by the definition.
#pragma once

#include "activation.cuh"
#include "conv_index.cuh"

namespace ulpgrad {

template <class S>
__device__ inline bool is_finite(S v) {
  return v - v == 0;
}

// Position (y, x) of an output channel. Padding is zeros: a weight that is not finite makes NaN of them.
template <class T>
__device__ Wide<T> forward_sum(const Convolution& c, const T* x, const Strides& xs, const T* w, const Strides& ws,
                               int image, int output, int py, int px) {
  const Axis ay = forward_axis(c.y), ax = forward_axis(c.x);
  const int first = output / c.outputs * c.inputs;
  Wide<T> sum = 0;
  for (int i = 0; i < ay.taps; ++i) {
    for (int j = 0; j < ax.taps; ++j) {
      const int y = read_at(ay, py, i), column = read_at(ax, px, j);
      const bool seen = inside(y, ay.size) && inside(column, ax.size);
      for (int k = 0; k < c.inputs; ++k) {
        const Wide<T> pixel = seen ? widen(x[offset_of(xs, image, first + k, y, column)]) : Wide<T>(0);
        sum += pixel * widen(w[offset_of(ws, output, k, i, j)]);
      }
    }
  }
  return sum;
}

// Pixel (y, x) of an input channel: only positions that there are give it a part.
template <class T>
__device__ Wide<T> gradient_sum(const Convolution& c, const T* g, const Strides& gs, const T* w, const Strides& ws,
                                int image, int input, int y, int x) {
  const Axis ay = gradient_axis(c.y, y % c.y.stride), ax = gradient_axis(c.x, x % c.x.stride);
  const int group = input / c.inputs, first = group * c.outputs;
  Wide<T> sum = 0;
  for (int i = 0; i < ay.taps; ++i) {
    for (int j = 0; j < ax.taps; ++j) {
      const int py = read_at(ay, y / c.y.stride, i), px = read_at(ax, x / c.x.stride, j);
      if (!inside(py, ay.size) || !inside(px, ax.size)) continue;
      const int tap_y = ay.tap_first + i * ay.tap_step, tap_x = ax.tap_first + j * ax.tap_step;
      for (int k = 0; k < c.outputs; ++k) {
        sum += widen(g[offset_of(gs, image, first + k, py, px)]) *
               widen(w[offset_of(ws, first + k, input - group * c.inputs, tap_y, tap_x)]);
      }
    }
  }
  return sum;
}

// One weight of a filter.
template <class T>
__device__ Wide<T> weight_sum(const Convolution& c, const T* g, const Strides& gs, const T* x, const Strides& xs,
                              int output, int input, int i, int j) {
  const Axis ay = forward_axis(c.y), ax = forward_axis(c.x);
  const int channel = output / c.outputs * c.inputs + input;
  Wide<T> sum = 0;
  for (int image = 0; image < c.images; ++image) {
    for (int py = 0; py < ay.positions; ++py) {
      for (int px = 0; px < ax.positions; ++px) {
        const int y = read_at(ay, py, i), column = read_at(ax, px, j);
        const bool seen = inside(y, ay.size) && inside(column, ax.size);
        const Wide<T> pixel = seen ? widen(x[offset_of(xs, image, channel, y, column)]) : Wide<T>(0);
        sum += pixel * widen(g[offset_of(gs, image, output, py, px)]);
      }
    }
  }
  return sum;
}

}  // namespace ulpgrad
