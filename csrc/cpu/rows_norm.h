// Normalisation: of rows (layer norm, RMS norm) and of channels (batch norm). 16-bit values are widened as they are
// read, statistics and sums are kept in float32.
#pragma once

#include <cstdint>

#include "for_floats.h"
#include "isa.h"

namespace ulpgrad {

// Rows of n values. Without a mean it is RMS norm. weight and bias may be null.
template <typename S>
struct RowNorm {
  const S* x;
  const S* weight;
  const S* bias;
  S* y;
  Wide<S>* mean;
  Wide<S>* rstd;
  int64_t n;
  double eps;
};

// Gradients of rows. dweight and dbias take the sums over these rows; without a mean it is RMS norm, and dbias is not
// used.
template <typename S>
struct RowNormGradient {
  const S* g;
  const S* x;
  const S* weight;
  const Wide<S>* mean;
  const Wide<S>* rstd;
  S* dx;
  Wide<S>* dweight;
  Wide<S>* dbias;
  int64_t n;
};

// x[n, c, s], normalised over n and s. weight and bias may be null.
template <typename S>
struct ChannelNorm {
  const S* g;  // gradient only
  const S* x;
  const S* weight;
  const S* bias;
  S* y;  // or dx
  Wide<S>* mean;
  Wide<S>* rstd;
  Wide<S>* dweight;  // gradient only, as dbias
  Wide<S>* dbias;
  int64_t n, c, s;
  double eps;
};

constexpr int64_t kChannelsTogether = 256;  // side by side: what is kept for each lies in the first cache

template <typename S>
struct NormFunctions {
  void (*forward)(const RowNorm<S>& a, int64_t begin, int64_t end);
  void (*gradient)(const RowNormGradient<S>& a, int64_t begin, int64_t end);
  // Channels [begin, end); where s is 1, at most kChannelsTogether.
  void (*channels)(const ChannelNorm<S>& a, int64_t begin, int64_t end);
  void (*channel_gradient)(const ChannelNorm<S>& a, int64_t begin, int64_t end);
};

using NormTable = ForFloats<NormFunctions>;

ULPGRAD_TABLE(NormTable, norm_table)

}  // namespace ulpgrad
