// Attention without the matrix of scores: blocks of queries x keys, with a running softmax.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

constexpr int64_t kAttentionQueries = 64, kAttentionKeys = 192;  // of a block of forward, and of backward:
constexpr int64_t kGradientQueries = 64, kGradientKeys = 128;

constexpr int64_t kAttentionFew = 3;  // queries whose scores are cheaper one by one (not by dot products)

// Values of a row are contiguous, rows lie `row` values apart.
struct AttentionRows {
  const void* data;
  int64_t row;
};

// Added to the scores (in the numbers that the kernel computes in), or (bool) saying which of them count. Any strides,
// in values.
struct AttentionMask {
  const void* data = nullptr;
  bool is_bool = false;
  int64_t row = 0, column = 0;
};

// Which weights are dropped: those whose word of the Philox stream is below `limit`, of which 2^32 drops all. What is
// kept is divided by `share`.
struct AttentionDropout {
  uint64_t key, counter_low, counter_high, limit;
  double share;
};

// One head of one batch entry.
struct AttentionHead {
  int64_t queries, keys, size, value_size;
  bool is_causal;
  double scale;
  AttentionRows q, k, v;
  AttentionMask mask;
  int64_t place = 0;  // of the first query among the keys: where causal, query i sees the keys up to place + i
  const void* values = nullptr;  // V as forward's product wants it, if it has been packed
  const AttentionDropout* dropout = nullptr;
  uint64_t first_weight = 0;   // index of the head's first weight among those of all heads
  int64_t row_of_weights = 0;  // from those of one query to those of the next

  // How many of the keys the queries before `query` see together.
  int64_t seen(int64_t query) const {
    if (!is_causal) return keys;
    const int64_t last = place + query;
    return last < 0 ? 0 : last < keys ? last : keys;
  }
};

// What one call of backward takes and gives, for one head of keys: it overwrites the rows of dk and dv of the keys
// [begin, end) with the sums over `count` heads of queries, and adds what these keys contribute to the rows of dq,
// which are padded.
struct AttentionGradient {
  const AttentionHead* heads;
  const AttentionRows *g, *y;
  const void* const* lse;
  void* const* dq;
  int64_t count;       // of heads
  int64_t begin, end;  // begin is a multiple of kGradientKeys
  void *dk, *dv;
};

// Everything for one format. Results are stored in it, lse, dq and sums in the numbers it is computed in.
struct AttentionKernels {
  // y and lse of the block of queries that starts at `first`; `y` and `lse` point at its own rows.
  void (*forward)(const AttentionHead&, int64_t first, void* y, void* lse, void* memory);
  void (*backward)(const AttentionGradient&, void* memory);
  // Rows of dq from `parts` padded sums that lie `part` values apart.
  void (*add_parts)(const void* sums, int64_t parts, int64_t part, int64_t rows, int64_t size, void* dq);
  // How many bytes of `memory` they use.
  int64_t (*forward_memory)(const AttentionHead&);
  int64_t (*backward_memory)(const AttentionGradient&);
  // How many bytes of `to` packing a head's V takes, 0 if it needs none; and packing the keys [begin, end), begin even.
  int64_t (*values_memory)(const AttentionHead&);
  void (*pack_values)(const AttentionHead&, int64_t begin, int64_t end, void* to);
};

struct AttentionTable {
  const AttentionKernels *f32, *f64, *bf16, *f16;
  const AttentionKernels* bf16_dots;  // by the CPU's dot products of bfloat16, null where there are none
  // Whether a row holds values so small that these dot products may take them, or what comes of them, for zero.
  bool (*has_tiny)(const AttentionRows& rows, int64_t count, int64_t size);
};

ULPGRAD_TABLE(AttentionTable, attention_table)

// Rows of sums are padded to whole vectors of every instruction set.
constexpr int64_t attention_width(int64_t size) { return (size + 15) / 16 * 16; }

}  // namespace ulpgrad
