// The units that the rungs from pairs on multiply, and the tile that their sums stand in.
#pragma once

#include "integer_matmul.h"
#include "integer_vector.h"

namespace ulpgrad::ULPGRAD_ISA {

void integer_loops(const IntegerProduct&);
void integer_rows(const IntegerProduct&);
void integer_pairs(const IntegerProduct&);
void integer_tile(const IntegerProduct&);
void integer_panels(const IntegerProduct&);

constexpr int64_t kPairLanes = kLanes<int32_t>;
constexpr int64_t kTileRows = 6, kTileColumns = 2 * kPairLanes;

// Two codes, `step` apart, as one unit of two 16-bit values; the second is zero if it is not there.
ULPGRAD_INLINE int32_t pair_of(const int8_t* x, int64_t step, bool both) {
  const uint32_t low = static_cast<uint16_t>(x[0]), high = both ? static_cast<uint16_t>(x[step]) : 0;
  return static_cast<int32_t>(low | high << 16);
}

// sums + the products of both halves of each unit.
ULPGRAD_INLINE Ints add_pairs(Ints sums, Ints a, Ints b) {
#if ULPGRAD_ISA_LEVEL == 2
  return plus<int32_t>(sums, (Ints)_mm512_madd_epi16((__m512i)a, (__m512i)b));
#elif ULPGRAD_ISA_LEVEL == 1
  return plus<int32_t>(sums, (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b));
#elif defined(__SSE2__)
  return plus<int32_t>(sums, (Ints)_mm_madd_epi16((__m128i)a, (__m128i)b));
#else
  const Ints low = shift_right(shift_left(a, 16), 16) * shift_right(shift_left(b, 16), 16);
  return plus<int32_t>(sums, plus<int32_t>(low, shift_right(a, 16) * shift_right(b, 16)));
#endif
}

}  // namespace ulpgrad::ULPGRAD_ISA
