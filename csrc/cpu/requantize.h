// Accumulators as codes: clamp(round((x + bias) * multiplier / 2^shift) + zero_point, low, high).
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

// The scales of a run of values: of one channel (then all pointers are to single values), or of each value.
template <typename Acc>
struct Scales {
  const int32_t* multiplier;
  const Acc* shift;  // as wide as the values: mixed widths become no vector code
  const Acc* bias;
};

// Codes are clamped to [least, most] before the zero point is added.
struct Range {
  int64_t zero_point, least, most;
};

template <typename Acc, typename Out>
using RequantizeRun = void (*)(const Acc* x, Out* y, int64_t n, Scales<Acc>, Range);

// [ties to even][one scale per value]
template <typename Acc, typename Out>
using RequantizeRuns = RequantizeRun<Acc, Out>[2][2];

template <typename Out>
struct RequantizeKernels {
  RequantizeRuns<int32_t, Out> scaled;   // any multiplier and shift
  RequantizeRun<int32_t, Out> high[2];   // ties up, every shift at least 33
  RequantizeRuns<int32_t, Out> shifted;  // no multiplier, every shift below 32
  RequantizeRuns<int64_t, Out> wide;     // no multiplier
};

struct RequantizeTable {
  RequantizeKernels<int8_t> s8;
  RequantizeKernels<uint8_t> u8;
  RequantizeKernels<int16_t> s16;
  RequantizeKernels<int32_t> s32;
};

ULPGRAD_TABLE(RequantizeTable, requantize_table)

}  // namespace ulpgrad
