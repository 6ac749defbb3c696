// Pooling to a given size: windows are spans of rows and columns, which differ by one in length and may overlap.
#pragma once

#include "isa.h"
#include "pool_pixels.h"

namespace ulpgrad {

struct AdaptiveGeometry {
  int64_t height, width;  // of an image
  int64_t rows, columns;  // of the result
  const PoolSpan *row_spans, *column_spans;
};

template <typename T>
struct AdaptiveKernels {
  // Each takes one plane. A window's values are added row by row, from left to right; a pixel's shares in the order of
  // the windows that see it.
  void (*mean)(const AdaptiveGeometry&, const T* x, T* y);
  void (*mean_gradient)(const AdaptiveGeometry&, const T* g, T* dx);  // adds to dx
  void (*max)(const AdaptiveGeometry&, const T* x, T* y, int64_t* places);
};

struct AdaptiveTable {
  AdaptiveKernels<float> f32;
  AdaptiveKernels<double> f64;
};

ULPGRAD_TABLE(AdaptiveTable, adaptive_table)

}  // namespace ulpgrad
