// Convolution by a matrix product: the matrix of patches is written to memory, and after the product what is left to
// do.
#include "conv_sums.cuh"
#include "element.cuh"

namespace ulpgrad {

// Patches as [image][group][position][input, tap row, tap column], the order of a filter's values.
template <class T>
__global__ void conv_unfold(T* patches, const T* x, Convolution c, Strides xs) {
  const Axis ay = forward_axis(c.y), ax = forward_axis(c.x);
  const int positions = ay.positions * ax.positions, taps = ay.taps * ax.taps;
  for_each_element(c.images * c.groups, positions, c.inputs, taps, false, [&](const Element& e) {
    const int image = e.image / c.groups, channel = e.image % c.groups * c.inputs + e.y;
    const int y = read_at(ay, e.channel / ax.positions, e.x / ax.taps);
    const int column = read_at(ax, e.channel % ax.positions, e.x % ax.taps);
    const bool seen = inside(y, ay.size) && inside(column, ax.size);
    const long long patch = static_cast<long long>(e.image) * positions + e.channel;
    patches[(patch * c.inputs + e.y) * taps + e.x] = seen ? x[offset_of(xs, image, channel, y, column)] : T{};
  });
}

// Bias (if any) and activation, from one layout into another.
template <class T>
__global__ void conv_finish(T* y, const T* sums, const T* bias, Convolution c, Strides ss, Strides ys, int activation) {
  for_each_element(c.images, c.groups * c.outputs, c.y.positions, c.x.positions, ys.channel == 1,
                   [&](const Element& e) {
                     T sum = sums[offset_of(ss, e.image, e.channel, e.y, e.x)];
                     if (bias) sum += bias[e.channel];
                     y[offset_of(ys, e.image, e.channel, e.y, e.x)] = activated(sum, activation);
                   });
}

}  // namespace ulpgrad
