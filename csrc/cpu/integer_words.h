// Matrix products of integers in their own width, which wrap: of 32 and 64 bits, and of few rows of any.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

constexpr int64_t kWordRows = 96, kWordSteps = 512;  // of a block of A, whose rows tiles read where they stand
constexpr int64_t kWordColumns = 64;                 // of a panel of B: whole vectors of every instruction set
constexpr int64_t kWordFew = 12;                     // rows for which B is read where it stands too

// A block of C: rows of `n` columns from `k` steps. Strides in values.
template <typename T>
struct WordBlock {
  int64_t m, n, k;
  const T *a, *b;
  int64_t a_row, a_column, b_row, b_column;
  T* c;
  int64_t c_row;
};

struct WordTable {
  void (*u8)(const WordBlock<uint8_t>&);
  void (*u16)(const WordBlock<uint16_t>&);
  void (*u32)(const WordBlock<uint32_t>&);
  void (*u64)(const WordBlock<uint64_t>&);
};

ULPGRAD_TABLE(WordTable, word_table)

}  // namespace ulpgrad
