// What the machine can do at most, measured: operations on registers by each arithmetic unit, and sweeps over memory.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

struct PeakLoop {
  void (*run)(int64_t rounds);  // null: there is no such unit
  int64_t operations;           // of one round; a multiply-add counts as two
  const char* instruction;
};

struct PeakTable {
  PeakLoop float32, float64;
  PeakLoop int16;                      // codes that are multiplied, and added up in 32 bits
  PeakLoop dot16, dot8, dot_bfloat16;  // the same, and bfloat16 added up in float32, by an extension of the level
};

ULPGRAD_TABLE(PeakTable, peak_table)

// Sweeps over n floats of each array, `passes` times; n in whole steps, arrays aligned to 64 bytes.
struct SweepTable {
  void (*read)(const float* x, int64_t n, int64_t passes);
  void (*write)(float* out, int64_t n, int64_t passes);
  void (*copy)(float* out, const float* x, int64_t n, int64_t passes);
  void (*triad)(float* out, const float* x, const float* y, int64_t n, int64_t passes);  // out = x + 3 y
  // The same past the caches: what is written is not read first. Null: there is no such instruction.
  void (*write_past)(float* out, int64_t n, int64_t passes);
  void (*copy_past)(float* out, const float* x, int64_t n, int64_t passes);
  void (*triad_past)(float* out, const float* x, const float* y, int64_t n, int64_t passes);
};

constexpr int64_t kSweepStep = 128;

ULPGRAD_TABLE(SweepTable, sweep_table)

}  // namespace ulpgrad
