// The second pass of a weight gradient: adds the sums of the slices, in their order. No block waits for another, and
// bits repeat, since nothing is added atomically.
#include "conv_sums.cuh"

namespace ulpgrad {

// Sums lie as [slice][group][output][tap row, tap column, input]. With `g` and `x` those that are not finite are made
// again by the definition: for units that make NaN of infinities by themselves.
template <class T>
__global__ void conv_weight_sum(T* dw, const Wide<T>* parts, Convolution c, Strides dws, int slices, const T* g,
                                const T* x, Strides gs, Strides xs) {
  const long long depth = static_cast<long long>(c.y.kernel) * c.x.kernel * c.inputs;
  const long long all = depth * c.outputs * c.groups, step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < all; i += step) {
    Wide<T> sum = 0;
    for (int slice = 0; slice < slices; ++slice) sum += parts[slice * all + i];
    const int output = static_cast<int>(i / depth), input = static_cast<int>(i % c.inputs);
    const int tap = static_cast<int>(i % depth / c.inputs);
    if (g && !is_finite(sum)) sum = weight_sum(c, g, gs, x, xs, output, input, tap / c.x.kernel, tap % c.x.kernel);
    dw[offset_of(dws, output, input, tap / c.x.kernel, tap % c.x.kernel)] = narrow<T>(sum);
  }
}

}  // namespace ulpgrad
