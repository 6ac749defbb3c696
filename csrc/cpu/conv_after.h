// What follows a convolution's sums beside an activation: a factor of each output, its bias behind it, a residual.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

// x = x * scale + bias + residual, each step rounded by itself, for `width` values (whole vectors) of each of `rows`.
template <typename T>
struct ConvAfter {
  T* x;
  int64_t step, width, rows;
  const T *scale, *bias;  // of each value of a row, or of each row; or none
  bool by_row;
  const T* residual;  // none, or rows `residual_step` apart
  int64_t residual_step;
};

struct ConvAfterTable {
  void (*f32)(const ConvAfter<float>&);
  void (*f64)(const ConvAfter<double>&);
};

ULPGRAD_TABLE(ConvAfterTable, conv_after_table)

inline void conv_after(Isa isa, const ConvAfter<float>& a) { table<ConvAfterTable>(isa).f32(a); }
inline void conv_after(Isa isa, const ConvAfter<double>& a) { table<ConvAfterTable>(isa).f64(a); }

}  // namespace ulpgrad
