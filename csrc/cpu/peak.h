// What the machine can do at most, measured: fused multiply-adds from registers, and copies of memory.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

struct PeakTable {
  // `rounds` steps of x = x * a + b in independent chains; returns their sum, so that nothing is left out.
  float (*fma32)(int64_t rounds, float a, float b);
  double (*fma64)(int64_t rounds, double a, double b);
  int chains32, chains64;  // multiply-adds in one step
};

ULPGRAD_TABLE(PeakTable, peak_table)

}  // namespace ulpgrad
