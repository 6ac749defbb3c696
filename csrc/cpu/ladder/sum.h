// The ladder of sums along rows of contiguous float32, one idea per file. The rung above them all is isa/reduction.cpp,
// which takes any axis and format, and adds by one tree whatever the instruction set.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

// y[i] is the sum of the n values of x from i * n on.
struct SumRows {
  const float* x;
  float* y;
  int64_t rows, n;
};

using Sums = void (*)(const SumRows&);

struct SumLadder {
  Sums loops, chains, lanes, threads;
};

ULPGRAD_TABLE(SumLadder, sum_ladder)

#ifdef ULPGRAD_ISA
namespace ULPGRAD_ISA {
void sum_loops(const SumRows&);
void sum_chains(const SumRows&);
void sum_lanes(const SumRows&);
void sum_threads(const SumRows&);
}  // namespace ULPGRAD_ISA
#endif

}  // namespace ulpgrad
