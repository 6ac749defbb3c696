// Pooling of images whose channels lie side by side: lanes are channels, so that windows of any shape are plain loops
// over pixels. A window's mean and the mean's gradient are the same sum: over a rectangle of pixels, or of windows.
#pragma once

#include <cstdint>

#include "halves.h"
#include "isa.h"
#include "pool.h"

namespace ulpgrad {

struct PoolSpan {
  int64_t begin, end;
};

// y[q][channel] = sum over rows and over columns[q] of x[row][column][channel], divided by `divisor`, or by their
// number where that is 0. With parts, each value is divided by row_parts[row] * column_parts[column] instead.
template <typename S>
struct PixelMeans {
  const S* x;
  int64_t row, column, channels;  // steps of x
  PoolSpan rows;
  const PoolSpan* columns;
  int64_t count, divisor;
  const int32_t *row_parts, *column_parts;
  S* y;
  int64_t y_column;
};

// A row of windows: the largest value of each, and its place as row * width + column. Taps are those on the image.
template <typename S>
struct PixelMaxima {
  const S* x;
  int64_t row, column, channels;                                  // steps of x
  int64_t top, left;                                              // of the row's first window
  PoolSpan taps;                                                  // rows of them
  int64_t kernel, stride, dilation_rows, dilation, width, count;  // along a row, but for dilation_rows
  S* y;
  int64_t* places;
  int64_t y_column;
};

template <typename S>
struct PixelKernels {
  void (*means)(const PixelMeans<S>&);
  void (*maxima)(const PixelMaxima<S>&);
};

struct PixelTable {
  PixelKernels<float> f32;
  PixelKernels<double> f64;
  PixelKernels<Bfloat16> b16;
  PixelKernels<Float16> f16;
};

ULPGRAD_TABLE(PixelTable, pixel_table)

// Images whose channels lie side by side; results lie so without gaps.
template <typename S>
struct PixelImages {
  const S* data;
  int64_t images, channels;
  int64_t image, row, column;  // steps
};

template <typename S>
void max_pool_pixels(const PixelImages<S>& x, const PoolGeometry& p, S* y, int64_t* places, Isa isa);

template <typename S>
void avg_pool_pixels(const PixelImages<S>& x, const PoolGeometry& p, S* y, Isa isa);

template <typename S>
void avg_pool_pixels_gradient(const PixelImages<S>& g, const PoolGeometry& p, S* dx, Isa isa);

// Of images of `size` values; g and the `count` places of an image lie alike, without gaps. Whether all places are in
// it.
template <typename S>
bool max_pool_pixels_gradient(const PixelImages<S>& g, const int64_t* places, int64_t count, int64_t size, S* dx,
                              Isa isa);

}  // namespace ulpgrad
