// Sums of pairs of neighbours: what integer convolution comes to where every output sees a single channel.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

// sums[p] = sum over i of x[p * step + offsets[i]] * the low half of weights[i] + x[p * step + offsets[i] + 1] * its
// high half; wraps. Up to kPairsBeyond values of x behind the last one are read.
struct PairSums {
  const int16_t* x;
  int64_t step;  // 1 or 2
  const int64_t* offsets;
  const int32_t* weights;
  int64_t pairs;
  int32_t* sums;
  int64_t count;
};

constexpr int64_t kPairsBeyond = 256;

struct PairSumsTable {
  void (*run)(const PairSums&);
  int64_t together;  // sums that are made at a time, at least
};

ULPGRAD_TABLE(PairSumsTable, pair_sums_table)

}  // namespace ulpgrad
