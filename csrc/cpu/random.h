// Random numbers from Philox4x32-10 (Salmon et al., SC 2011): each block of four words is a function of key and
// counter.
#pragma once

#include <cstdint>

#include "for_floats.h"
#include "isa.h"

namespace ulpgrad {

struct Stream {
  uint64_t key, counter_low, counter_high;
};

// out = x * scale where the word is at least limit, else 0. limit may be 2^32.
template <typename S>
using DropoutFunction = void (*)(const Stream&, const S* x, S* out, int64_t size, int64_t begin, int64_t end,
                                 uint64_t limit, Wide<S> scale);

// Each fills the part of `out` that belongs to the blocks [begin, end) and is below `size` values.
struct RandomTable {
  void (*bits)(const Stream&, uint32_t* out, int64_t size, int64_t begin, int64_t end);
  // The upper 32 - shift bits of each word, times scale.
  void (*uniform)(const Stream&, float* out, int64_t size, int64_t begin, int64_t end, int shift, float scale);
  void (*uniform53)(const Stream&, double* out, int64_t size, int64_t begin, int64_t end);
  void (*normal)(const Stream&, float* out, int64_t size, int64_t begin, int64_t end);
  void (*normal53)(const Stream&, double* out, int64_t size, int64_t begin, int64_t end);
  ForFloats<DropoutFunction> dropout;
};

ULPGRAD_TABLE(RandomTable, random_table)

}  // namespace ulpgrad
