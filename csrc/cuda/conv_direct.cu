// Convolution by its definition: a thread sums one result, and reads all that this needs from memory.
#include "conv_sums.cuh"

namespace ulpgrad {

// An element of an array of images, from a thread's number. Neighbouring threads take neighbours in memory: pixels of a
// row, or channels where these lie side by side.
struct Element {
  int image, channel, y, x;
};

__device__ inline Element element_of(long long i, int channels, int rows, int columns, bool channels_last) {
  Element e;
  if (channels_last) {
    e.channel = static_cast<int>(i % channels), i /= channels;
  }
  e.x = static_cast<int>(i % columns), i /= columns;
  e.y = static_cast<int>(i % rows), i /= rows;
  if (!channels_last) {
    e.channel = static_cast<int>(i % channels), i /= channels;
  }
  e.image = static_cast<int>(i);
  return e;
}

template <class T>
__global__ void conv_forward_direct(T* y, const T* x, const T* w, const T* bias, Convolution c, Strides xs, Strides ws,
                                    Strides ys, int activation) {
  const int channels = c.groups * c.outputs;
  const long long all = static_cast<long long>(c.images) * channels * c.y.positions * c.x.positions;
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < all; i += step) {
    const Element e = element_of(i, channels, c.y.positions, c.x.positions, ys.channel == 1);
    Wide<T> sum = forward_sum(c, x, xs, w, ws, e.image, e.channel, e.y, e.x);
    if (bias) sum += widen(bias[e.channel]);
    y[offset_of(ys, e.image, e.channel, e.y, e.x)] = narrow<T>(activated(sum, activation));
  }
}

template <class T>
__global__ void conv_input_gradient_direct(T* dx, const T* g, const T* w, Convolution c, Strides gs, Strides ws,
                                           Strides dxs) {
  const int channels = c.groups * c.inputs;
  const long long all = static_cast<long long>(c.images) * channels * c.y.size * c.x.size;
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < all; i += step) {
    const Element e = element_of(i, channels, c.y.size, c.x.size, dxs.channel == 1);
    dx[offset_of(dxs, e.image, e.channel, e.y, e.x)] =
        narrow<T>(gradient_sum(c, g, gs, w, ws, e.image, e.channel, e.y, e.x));
  }
}

template <class T>
__global__ void conv_weight_gradient_direct(T* dw, const T* g, const T* x, Convolution c, Strides gs, Strides xs,
                                            Strides dws) {
  const long long all = static_cast<long long>(c.groups) * c.outputs * c.inputs * c.y.kernel * c.x.kernel;
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < all; i += step) {
    const Element e = element_of(i, c.inputs, c.y.kernel, c.x.kernel, false);
    dw[offset_of(dws, e.image, e.channel, e.y, e.x)] =
        narrow<T>(weight_sum(c, g, gs, x, xs, e.image, e.channel, e.y, e.x));
  }
}

}  // namespace ulpgrad
