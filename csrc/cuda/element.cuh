// Elements of arrays of images, one for each thread.
#pragma once

#include "conv_index.cuh"

namespace ulpgrad {

struct Element {
  int image, channel, y, x;
};

// An array of images of so many channels, rows and columns, whose elements are numbered as they lie: pixels of a row
// side by side, or channels.
struct Elements {
  long long count;
  int channels, rows, columns;
  bool channels_last;
  Divisor by_channels, by_rows, by_columns;
};

__host__ __device__ constexpr Elements elements_of(int images, int channels, int rows, int columns,
                                                   bool channels_last) {
  return {static_cast<long long>(images) * channels * rows * columns,
          channels,
          rows,
          columns,
          channels_last,
          divisor_of(static_cast<unsigned>(channels)),
          divisor_of(static_cast<unsigned>(rows)),
          divisor_of(static_cast<unsigned>(columns))};
}

// Divides `i` by a size: the remainder is returned, the quotient stays. Up to 2^31 elements that is a multiplication.
__host__ __device__ constexpr int split(long long& i, int size, const Divisor& by, bool is_short) {
  const long long whole = is_short ? quotient(static_cast<unsigned>(i), by) : i / size;
  const int rest = static_cast<int>(i - whole * size);
  i = whole;
  return rest;
}

__host__ __device__ constexpr Element element_at(const Elements& all, long long i) {
  const bool is_short = all.count <= 1ll << 31;
  int channel = 0;
  if (all.channels_last) channel = split(i, all.channels, all.by_channels, is_short);
  const int x = split(i, all.columns, all.by_columns, is_short), y = split(i, all.rows, all.by_rows, is_short);
  if (!all.channels_last) channel = split(i, all.channels, all.by_channels, is_short);
  return {static_cast<int>(i), channel, y, x};
}

// Calls each(element) for the elements of this thread: one, and more in steps of the grid should there be more of them
// than threads. All threads of a block come here.
template <class Each>
__device__ inline void for_each_element(int images, int channels, int rows, int columns, bool channels_last,
                                        const Each& each) {
  __shared__ Elements all;
  if (threadIdx.x == 0) all = elements_of(images, channels, rows, columns, channels_last);
  __syncthreads();
  const long long step = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; i < all.count; i += step) {
    each(element_at(all, i));
  }
}

}  // namespace ulpgrad
