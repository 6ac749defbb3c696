// Winograd's F(2 x 2, 3 x 3) (Lavin and Gray, CVPR 2016): tiles of 2 x 2 results from 4 x 4 pixels by 16 products
// instead of 36. Images and filters are transformed first, and products of matrices sum over the channels, one for each
// of the 16.
#include "conv_sums.cuh"
#include "element.cuh"

namespace ulpgrad {

__device__ inline int tiles_along(const Window& w) { return cdiv(w.positions, 2); }

// From a column or a row of four pixels, from three weights, and back to two results.
template <class T>
__device__ inline void transform_pixels(T& a, T& b, T& c, T& d) {
  const T second = b, third = c;
  a -= third, b = second + third, c = third - second, d = second - d;
}

template <class T>
__device__ inline void transform_weights(const T (&w)[3], T (&v)[4]) {
  const T ends = (w[0] + w[2]) / 2, middle = w[1] / 2;
  v[0] = w[0], v[1] = ends + middle, v[2] = ends - middle, v[3] = w[2];
}

template <class T>
__device__ inline void transform_sums(const T (&m)[4], T (&y)[2]) {
  y[0] = m[0] + m[1] + m[2], y[1] = m[1] - m[2] - m[3];
}

// u as [product][input][tile].
template <class T>
__global__ void winograd_images(T* u, const T* x, Convolution c, Strides xs) {
  const int down = tiles_along(c.y), across = tiles_along(c.x);
  const long long tiles = static_cast<long long>(c.images) * down * across;
  for_each_element(c.images, c.inputs, down, across, false, [&](const Element& e) {
    T d[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int y = e.y * 2 - c.y.padding + i, column = e.x * 2 - c.x.padding + j;
        const bool seen = inside(y, c.y.size) && inside(column, c.x.size);
        d[i][j] = seen ? x[offset_of(xs, e.image, e.channel, y, column)] : T(0);
      }
    }
#pragma unroll
    for (int j = 0; j < 4; ++j) transform_pixels(d[0][j], d[1][j], d[2][j], d[3][j]);
    const long long tile = (static_cast<long long>(e.image) * down + e.y) * across + e.x;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      transform_pixels(d[i][0], d[i][1], d[i][2], d[i][3]);
#pragma unroll
      for (int j = 0; j < 4; ++j)
        u[((i * 4 + j) * static_cast<long long>(c.inputs) + e.channel) * tiles + tile] = d[i][j];
    }
  });
}

// v as [product][output][input].
template <class T>
__global__ void winograd_filters(T* v, const T* w, Convolution c, Strides ws) {
  for_each_element(c.outputs, c.inputs, 1, 1, false, [&](const Element& e) {
    T rows[4][3];
#pragma unroll
    for (int j = 0; j < 3; ++j) {
      T taps[3], found[4];
#pragma unroll
      for (int i = 0; i < 3; ++i) taps[i] = w[offset_of(ws, e.image, e.channel, i, j)];
      transform_weights(taps, found);
#pragma unroll
      for (int i = 0; i < 4; ++i) rows[i][j] = found[i];
    }
    const long long all = static_cast<long long>(c.outputs) * c.inputs;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      T found[4];
      transform_weights(rows[i], found);
#pragma unroll
      for (int j = 0; j < 4; ++j)
        v[(i * 4 + j) * all + static_cast<long long>(e.image) * c.inputs + e.channel] = found[j];
    }
  });
}

// Results from m as [product][output][tile]. What is not finite is summed by the definition: an infinite pixel has made
// NaN of results beside it too.
template <class T>
__global__ void winograd_results(T* y, const T* m, const T* x, const T* w, const T* bias, Convolution c, Strides xs,
                                 Strides ws, Strides ys, int activation) {
  const int down = tiles_along(c.y), across = tiles_along(c.x);
  const long long tiles = static_cast<long long>(c.images) * down * across;
  for_each_element(c.images, c.outputs, down, across, false, [&](const Element& e) {
    const long long tile = (static_cast<long long>(e.image) * down + e.y) * across + e.x;
    T rows[2][4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      T sums[4], found[2];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sums[i] = m[((i * 4 + j) * static_cast<long long>(c.outputs) + e.channel) * tiles + tile];
      }
      transform_sums(sums, found);
      rows[0][j] = found[0], rows[1][j] = found[1];
    }
#pragma unroll 1
    for (int i = 0; i < 2; ++i) {
      T found[2];
      transform_sums(rows[i], found);
#pragma unroll 1
      for (int j = 0; j < 2; ++j) {
        const int row = e.y * 2 + i, column = e.x * 2 + j;
        if (row >= c.y.positions || column >= c.x.positions) continue;
        T sum = found[j];
        if (!is_finite(sum)) sum = forward_sum(c, x, xs, w, ws, e.image, e.channel, row, column);
        if (bias) sum += bias[e.channel];
        y[offset_of(ys, e.image, e.channel, row, column)] = activated(sum, activation);
      }
    }
  });
}

}  // namespace ulpgrad
