// Attention without the matrix of scores: blocks of queries x keys, with a running softmax.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

constexpr int64_t kAttentionQueries = 64, kAttentionKeys = 128;  // of a block

// Values of a row are contiguous, rows lie `row` apart.
struct AttentionRows {
  const float* data;
  int64_t row;
};

// Added to the scores, or (bool) saying which of them count. Any strides, in values.
struct AttentionMask {
  const void* data = nullptr;
  bool is_bool = false;
  int64_t row = 0, column = 0;
};

// One head of one batch entry.
struct AttentionHead {
  int64_t queries, keys, size, value_size;
  bool is_causal;
  float scale;
  AttentionRows q, k, v;
  AttentionMask mask;
};

// What one call of backward takes and gives. It overwrites the rows of dk and dv of the keys [begin, end), and adds
// what these keys contribute to all rows of dq, whose width is that of q rounded up to 16.
struct AttentionGradient {
  AttentionRows g, y;
  const float* lse;
  int64_t begin, end;  // begin is a multiple of kAttentionKeys
  float *dq, *dk, *dv;
};

struct AttentionTable {
  // y and lse of the block of queries that starts at `first`; `y` and `lse` point at its own rows.
  void (*forward)(const AttentionHead&, int64_t first, float* y, float* lse, float* memory);
  void (*backward)(const AttentionHead&, const AttentionGradient&, float* memory);
  // How many values of `memory` they use.
  int64_t (*forward_memory)(const AttentionHead&);
  int64_t (*backward_memory)(const AttentionHead&);
};

ULPGRAD_TABLE(AttentionTable, attention_table)

}  // namespace ulpgrad
