// Reductions of integers and bools: exact, so that any order of joining gives the same.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

// Sums and products are made in 64 bits and wrap; the others give what they are made of.
enum class Count : int { sum, prod, max, min };

template <typename S>
struct CountFunctions {
  // `rows` runs of n values; `out` holds 64-bit integers for sum and prod, else S.
  void (*runs)(Count kind, const S* x, int64_t rows, int64_t n, void* out);
  // n rows of `width` <= kCountTile values, `stride` apart, joined element by element.
  void (*columns)(Count kind, const S* x, int64_t n, int64_t width, int64_t stride, void* out);
  // Where each of `rows` runs of n >= 1 values has its first max or min.
  void (*arg_runs)(Count kind, const S* x, int64_t rows, int64_t n, int64_t* out);
};

constexpr int64_t kCountTile = 1024;  // columns whose accumulators stay in the first cache

struct CountTable {
  CountFunctions<int8_t> i8;
  CountFunctions<int16_t> i16;
  CountFunctions<int32_t> i32;
  CountFunctions<int64_t> i64;
  CountFunctions<uint8_t> u8;
  CountFunctions<uint16_t> u16;
  CountFunctions<uint32_t> u32;
  CountFunctions<uint64_t> u64;
};

ULPGRAD_TABLE(CountTable, count_table)

}  // namespace ulpgrad
