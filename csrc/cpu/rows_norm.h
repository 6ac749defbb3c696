// Normalisation: of rows (layer norm, RMS norm) and of channels (batch norm).
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

// Rows of n values. Without a mean it is RMS norm. weight and bias may be null.
template <typename T>
struct RowNorm {
  const T* x;
  const T* weight;
  const T* bias;
  T* y;
  T* mean;
  T* rstd;
  int64_t n;
  double eps;
};

// Gradients of rows. dweight and dbias take the sums over these rows; without a mean it is RMS norm, and dbias is not
// used.
template <typename T>
struct RowNormGradient {
  const T* g;
  const T* x;
  const T* weight;
  const T* mean;
  const T* rstd;
  T* dx;
  T* dweight;
  T* dbias;
  int64_t n;
};

// x[n, c, s], normalised over n and s. weight and bias may be null.
template <typename T>
struct ChannelNorm {
  const T* g;  // gradient only
  const T* x;
  const T* weight;
  const T* bias;
  T* y;  // or dx
  T* mean;
  T* rstd;
  T* dweight;  // gradient only, as dbias
  T* dbias;
  int64_t n, c, s;
  double eps;
};

template <typename T>
struct NormFunctions {
  void (*forward)(const RowNorm<T>& a, int64_t begin, int64_t end);
  void (*gradient)(const RowNormGradient<T>& a, int64_t begin, int64_t end);
  // Channels [begin, end).
  void (*channels)(const ChannelNorm<T>& a, int64_t begin, int64_t end);
  void (*channel_gradient)(const ChannelNorm<T>& a, int64_t begin, int64_t end);
};

struct NormTable {
  NormFunctions<float> f32;
  NormFunctions<double> f64;
};

ULPGRAD_TABLE(NormTable, norm_table)

}  // namespace ulpgrad
