// Conversions between floating formats, each rounding once to nearest even.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

using CastLoop = void (*)(const void* in, void* out, int64_t n);

// Named source_target; h is float16, b bfloat16, s float32 (single), d float64 (double).
struct CastTable {
  CastLoop b_s, s_b, h_s, s_h, d_b, d_h, b_d, h_d, s_d, d_s;
};

ULPGRAD_TABLE(CastTable, cast_table)

}  // namespace ulpgrad
