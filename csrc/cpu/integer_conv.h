// What an integer convolution is asked for, and its three ways: columns of pixels from channels that lie apart, patches
// of channels that lie side by side, and single channels by themselves.
#pragma once

#include <utility>

#include "integer_plan.h"

namespace ulpgrad {

using Pair = std::pair<int64_t, int64_t>;

struct IntegerWindows {
  int64_t channels, height, width, kernel_rows, kernel_cols, out_rows, out_cols;  // channels of one group
  Pair stride, padding, dilation;
  int64_t channel_step, row_step, col_step;  // strides of the image, in codes
  int64_t pad;

  int64_t taps() const { return channels * kernel_rows * kernel_cols; }
  int64_t pixels() const { return out_rows * out_cols; }
  bool is_plain() const {
    return kernel_rows == 1 && kernel_cols == 1 && stride == Pair{1, 1} && padding == Pair{0, 0} &&
           (row_step == width * col_step || height == 1);
  }
};

// Of images x [n, c, h, w] and filters of `channels` channels; ValueError where no window fits. Strides of x are
// entered by `lay`.
IntegerWindows windows_of(const std::string& op, const py::array& x, int64_t channels, const Pair& kernel,
                          const Pair& stride, const Pair& padding, const Pair& dilation);
void lay(IntegerWindows& w, const py::array& x);

// What all blocks of one convolution share.
struct IntegerConv {
  IntegerWindows w;
  IntegerGemm gemm;  // of one group's weights, for any number of pixels
  Accumulator accumulator;
  Isa isa;
  const char *image, *weight;
  char* out;
  int64_t images, groups, image_step, size_x, size_w, size_out;

  // Whether products may be added in any order, without a look at where sums overflow.
  bool is_free() const {
    return gemm.plan.limit != Limit::note && (gemm.plan.chunk == 0 || gemm.plan.chunk >= w.taps());
  }
};

// The products of patches, which hold channels side by side: for sums that are free in their order.
void convolve_patches(const IntegerConv& job);

// Groups of one channel (depthwise), as far as strides, dilations and the accumulator allow; x may have any strides.
bool is_depthwise(const IntegerConv& job);
void convolve_depthwise(const IntegerConv& job);

}  // namespace ulpgrad
