// Pooling of contiguous planes: windows of images and their gradients.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

struct PoolGeometry {
  int64_t height, width;  // of an image
  int64_t rows, columns;  // of the result
  int64_t kernel[2], stride[2], padding[2], dilation[2];
  bool include_padding;  // in the count an average is divided by
};

template <typename T>
struct PoolKernels {
  // Each takes one plane.
  void (*max)(const PoolGeometry&, const T* x, T* y, int64_t* indices);
  void (*avg)(const PoolGeometry&, const T* x, T* y);
  void (*avg_gradient)(const PoolGeometry&, const T* g, T* dx);  // adds to dx
};

template <typename T>
struct IntegerPoolKernels {
  // Each takes one plane. `memory` holds rows * (width + columns) 32-bit values. Means are rounded to the nearest code.
  void (*max)(const PoolGeometry&, const T* x, T* y, void* memory);
  void (*avg)(const PoolGeometry&, const T* x, T* y, int32_t padding_value, bool ties_to_even, void* memory);
};

struct PoolTable {
  PoolKernels<float> f32;
  PoolKernels<double> f64;
  IntegerPoolKernels<int8_t> s8;
  IntegerPoolKernels<uint8_t> u8;
  IntegerPoolKernels<int16_t> s16;
};

ULPGRAD_TABLE(PoolTable, pool_table)

}  // namespace ulpgrad
