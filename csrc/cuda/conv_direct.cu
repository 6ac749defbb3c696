// Convolution by its definition: a thread sums one result, and reads all that this needs from memory.
#include "conv_epilogue.cuh"
#include "conv_sums.cuh"
#include "element.cuh"

namespace ulpgrad {

template <class T>
__global__ void conv_forward_direct(T* y, const T* x, const T* w, const T* bias, const T* scale, const T* residual,
                                    Convolution c, Strides xs, Strides ws, Strides ys, After after) {
  __shared__ Epilogue<T> epilogue;
  if (threadIdx.x == 0) epilogue = {bias, scale, residual, after};  // seen once for_each_element() has waited
  const bool channels_last = ys.channel == 1;
  for_each_element(c.images, c.groups * c.outputs, c.y.positions, c.x.positions, channels_last, [&](const Element& e) {
    const auto offset = [&] { return offset_of(after.residual, e.image, e.channel, e.y, e.x); };
    const Wide<T> sum = forward_sum(c, x, xs, w, ws, e.image, e.channel, e.y, e.x);
    store_as(y, offset_of(ys, e.image, e.channel, e.y, e.x), with_epilogue(epilogue, e.channel, offset, sum),
             after.stored);
  });
}

template <class T>
__global__ void conv_input_gradient_direct(T* dx, const T* g, const T* w, Convolution c, Strides gs, Strides ws,
                                           Strides dxs) {
  const bool channels_last = dxs.channel == 1;
  for_each_element(c.images, c.groups * c.inputs, c.y.size, c.x.size, channels_last, [&](const Element& e) {
    const Wide<T> sum = gradient_sum(c, g, gs, w, ws, e.image, e.channel, e.y, e.x);
    dx[offset_of(dxs, e.image, e.channel, e.y, e.x)] = narrow<T>(sum);
  });
}

template <class T>
__global__ void conv_weight_gradient_direct(T* dw, const T* g, const T* x, Convolution c, Strides gs, Strides xs,
                                            Strides dws) {
  for_each_element(c.groups * c.outputs, c.inputs, c.y.kernel, c.x.kernel, false, [&](const Element& e) {
    const Wide<T> sum = weight_sum(c, g, gs, x, xs, e.image, e.channel, e.y, e.x);
    dw[offset_of(dws, e.image, e.channel, e.y, e.x)] = narrow<T>(sum);
  });
}

}  // namespace ulpgrad
