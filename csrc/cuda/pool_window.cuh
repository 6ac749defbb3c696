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

// a / b of numbers that are not negative. Most fit 32 bits, of which a division takes a fourth of the time.
__host__ __device__ constexpr long long whole_part(long long a, long long b) {
  return (a | b) >> 32 ? a / b : static_cast<unsigned>(a) / static_cast<unsigned>(b);
}

// Part i of `size` values in `count` parts, which differ in length by one and overlap where they do not come out even.
// With the two exchanged: the parts that see value i.
__host__ __device__ constexpr Span part_of(int size, int count, long long i) {
  return {whole_part(i * size, count), whole_part((i + 1) * size + count - 1, count)};
}

// How many values a window of these rows and columns has, as a number to divide by.
template <class T>
__host__ __device__ constexpr Wide<T> values_in(const Span& rows, const Span& columns) {
  return static_cast<Wide<T>>(rows.end - rows.first) * (columns.end - columns.first);
}

}  // namespace ulpgrad
