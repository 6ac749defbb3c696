// Fixed-point codes: exact integers of one operation, cut to a result word. See kernels/fixed/spec.py.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

enum class FixedKind : int { add = 0, subtract, multiply, divide, keep, negate, absolute };
enum class FixedRounding : int { nearest_even = 0, nearest_away, toward_zero, up, down, to_odd, stochastic };
enum class FixedWord : int { i8 = 0, i16, i32, i64, u8, u16, u32, u64 };

struct FixedCall {
  FixedKind kind;
  FixedWord a, b, out;
  int left, right;  // zeros that each operand gains
  int drop;         // fraction bits that go; negative: zeros that come
  FixedRounding rounding;
  bool wrap;
  int random_bits;
  int64_t low;  // codes of the result
  uint64_t high;
  int width;  // 32, 64 or 128: what holds every intermediate value
};

// One run of n values: operands with a step in values each (0: the same again), all results side by side. `words` and
// `outside` may be absent.
struct FixedRun {
  const void *a, *b;
  int64_t a_step, b_step;
  const uint32_t* words;
  void* out;
  uint8_t* outside;
  int64_t n;
};

// One row of a matrix product: a (k values, a step apart) times b (k rows of n values each, side by side, in order).
struct FixedRow {
  const void *a, *b;
  int64_t a_step, k;
  const uint32_t* words;
  void* out;
  uint8_t* outside;
  int64_t n;
  void* sums;  // room for n values of the width
};

struct FixedTable {
  void (*run)(const FixedCall& call, const FixedRun& run);
  void (*row)(const FixedCall& call, const FixedRow& row);
};

ULPGRAD_TABLE(FixedTable, fixed_table)

}  // namespace ulpgrad
