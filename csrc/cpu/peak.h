// What the machine can do at most, measured: multiply-adds from registers, of floats and of integers, and copies of
// memory.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

struct PeakTable {
  // `rounds` steps of x = x * a + b in independent chains; returns their sum, so that nothing is left out.
  float (*fma32)(int64_t rounds, float a, float b);
  double (*fma64)(int64_t rounds, double a, double b);
  int chains32, chains64;  // multiply-adds in one step
  // The same for codes of 16 bits, and of 8, that are added up in 32: with AVX-512 VNNI, and without.
  int32_t (*dot16)(int64_t rounds, int32_t a, int32_t b);
  int chains16;
  int32_t (*vnni16)(int64_t rounds, int32_t a, int32_t b);
  int32_t (*vnni8)(int64_t rounds, int32_t a, int32_t b);
  int vnni_chains16, vnni_chains8;  // 0: there is none
};

ULPGRAD_TABLE(PeakTable, peak_table)

}  // namespace ulpgrad
