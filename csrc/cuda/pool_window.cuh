// Which pixels a window of pooling sees, and which windows see a pixel, along one axis. Padding is never looked at.
#pragma once

#include "conv_index.cuh"

namespace ulpgrad {

struct Pool {
  int images, channels;
  Window y, x;
};

// From `first` to before `end`.
struct Span {
  long long first, end;
};

// Pixels of the image that a window sees, in steps of the dilation.
__host__ __device__ constexpr Span span_of(const Window& w, int position) {
  const long long start = static_cast<long long>(position) * w.stride - w.padding;
  const long long end = start + static_cast<long long>(w.kernel - 1) * w.dilation + 1;
  const long long first = start < 0 ? start + (-start + w.dilation - 1) / w.dilation * w.dilation : start;
  return {first, end < w.size ? end : w.size};
}

// Windows without dilation that see a pixel.
__host__ __device__ constexpr Span windows_over(const Window& w, int pixel) {
  const long long last = (static_cast<long long>(pixel) + w.padding) / w.stride;
  const long long before =
      static_cast<long long>(pixel) + w.padding - w.kernel;  // the last pixel of one that ends too early
  return {before < 0 ? 0 : before / w.stride + 1, last < w.positions ? last + 1 : w.positions};
}

}  // namespace ulpgrad
