// Values to codes of an affine format and back: code = clamp(round(value / scale) + zero_point).
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

// Scales and zero points of a run of values: of one channel (then both point to single numbers), or of each value.
struct AffineGrid {
  const double* scale;
  const double* zero_point;
  double low, high;  // codes
};

// Gives whether there was a NaN, whose code means nothing.
template <typename T, typename Out>
using AffineRun = bool (*)(const T* x, Out* y, int64_t n, AffineGrid);

template <typename T>
struct AffineKernels {
  // [one scale for each value]
  AffineRun<T, int8_t> s8[2];
  AffineRun<T, uint8_t> u8[2];
  AffineRun<T, T> values[2];  // what the codes stand for, instead of the codes
};

struct AffineTable {
  AffineKernels<float> f32;
  AffineKernels<double> f64;
};

ULPGRAD_TABLE(AffineTable, affine_table)

}  // namespace ulpgrad
