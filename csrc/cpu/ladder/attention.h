// The attention ladder: float32 heads without masks, on one thread, one idea per file. The rung above them all is
// isa/attention_forward.h, which takes any format, stride and mask, and shares blocks out among threads.
//
// Shares of the FMA peak of one core (117 GFLOP/s, Zen 4 with AVX-512) on 2 x 4 causal heads of 512 x 64: rows 5 %,
// vectors 11 %, lanes 36 %, tile 55 %, registers 56 %; the rung above them 64 % of both cores. The registers rung gains
// nothing certain here, 0.9x to 1.1x from run to run: it saves passes over scores, not arithmetic.
#pragma once

#include <cstdint>

#include "isa.h"

namespace ulpgrad {

// One head: y and lse from contiguous rows of q, k and v.
struct LadderHead {
  int64_t queries, keys, size, value_size;
  bool is_causal;
  float scale;
  const float *q, *k, *v;
  float *y, *lse, *work;

  int64_t seen(int64_t query) const { return is_causal && query + 1 < keys ? query + 1 : keys; }
};

constexpr int64_t kLadderQueries = 64, kLadderKeys = 192;  // of a block

// How many values of `work` a head needs: a row of scores, or what belongs to a block.
constexpr int64_t ladder_work(int64_t keys, int64_t size, int64_t value_size) {
  return keys + 16 + kLadderQueries * (size + kLadderKeys + value_size + 64) + kLadderKeys * (value_size + 16);
}

using Attend = void (*)(const LadderHead&);

struct AttentionLadder {
  Attend rows, vectors, lanes, tile, registers;
};

ULPGRAD_TABLE(AttentionLadder, attention_ladder)

#ifdef ULPGRAD_ISA
namespace ULPGRAD_ISA {
void attend_rows(const LadderHead&);
void attend_vectors(const LadderHead&);
void attend_lanes(const LadderHead&);
void attend_tile(const LadderHead&);
void attend_registers(const LadderHead&);
}  // namespace ULPGRAD_ISA
#endif

}  // namespace ulpgrad
