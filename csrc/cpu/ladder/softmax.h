// The softmax ladder: y = exp(x) / sum(exp(x)) along rows of contiguous float32, one idea per file. The rung above them
// all is isa/rows.cpp, which takes any axis and format.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

struct SoftmaxRows {
  const float* x;
  float* y;
  int64_t rows, n;
};

using Softmax = void (*)(const SoftmaxRows&);

struct SoftmaxLadder {
  Softmax passes, polynomial, lanes, rows, sweeps, threads;
};

ULPGRAD_TABLE(SoftmaxLadder, softmax_ladder)

#ifdef ULPGRAD_ISA
namespace ULPGRAD_ISA {
void softmax_passes(const SoftmaxRows&);
void softmax_polynomial(const SoftmaxRows&);
void softmax_lanes(const SoftmaxRows&);
void softmax_rows(const SoftmaxRows&);
void softmax_sweeps(const SoftmaxRows&);
void softmax_threads(const SoftmaxRows&);
}  // namespace ULPGRAD_ISA
#endif

}  // namespace ulpgrad
