// Convolution without a patch matrix: images are copied once into padded planes on which every tap of the filter is the
// same plane read at another offset. A row of the patch matrix is then a pointer, not a copy.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

// y[i][q] = bias[i] + sum over p of a[p * outputs + i] * x[offset[p] + q], for q in [0, q_count); rows of y lie y_row
// apart. `outputs` is at most ConvTable::block. Reads x, and writes y, up to the next multiple of 64 bytes beyond
// q_count.
template <typename T>
struct ConvBlock {
  int64_t outputs, k, q_count;
  const T* a;
  const T* bias;  // `outputs` values, or none
  const T* x;
  const int64_t* offset;
  T* y;
  int64_t y_row;
};

// sum[i * sum_row + p] += sum over q of g[i * g_row + q] * x[offset[p] + q]; q_count is a multiple of 64 bytes.
template <typename T>
struct ConvDots {
  int64_t outputs, k, q_count;
  const T* g;
  int64_t g_row;
  const T* x;
  const int64_t* offset;
  T* sum;
  int64_t sum_row;
};

template <typename T>
struct ConvKernels {
  void (*block)(const ConvBlock<T>&);
  void (*dots)(const ConvDots<T>&);
  bool (*all_finite)(const T* x, int64_t n);
};

struct ConvTable {
  int64_t block;  // outputs that one register tile holds
  ConvKernels<float> f32;
  ConvKernels<double> f64;
};

ULPGRAD_TABLE(ConvTable, conv_table)

}  // namespace ulpgrad
