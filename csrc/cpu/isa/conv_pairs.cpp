// The convolution's tiles on pairs of bfloat16 channels: one instruction multiplies both and adds them to a float32
// sum.
#include "conv.h"
#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

#if ULPGRAD_ISA_LEVEL == 2

#define ULPGRAD_TARGET __attribute__((target("avx512bf16")))
using Unit = Bfloat16Pair;
using Sum = float;
using Weights = __m512bh;
ULPGRAD_TARGET ULPGRAD_INLINE Weights load_weights(const Unit* p) { return (Weights)_mm512_loadu_si512(p); }
ULPGRAD_TARGET ULPGRAD_INLINE Weights repeat(const Unit* p) {
  int32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return (Weights)_mm512_set1_epi32(bits);
}
ULPGRAD_TARGET ULPGRAD_INLINE void multiply_add(Vec<float>& sum, const Weights& w, const Weights& x) {
  sum = (Vec<float>)_mm512_dpbf16_ps((__m512)sum, w, x);
}
constexpr int kTogether = 2;
#include "conv_tile_dots.h"
#include "conv_tile_row.h"
#undef ULPGRAD_TARGET

extern const ConvPairsTable conv_pairs_table = {row, dots};

#else

extern const ConvPairsTable conv_pairs_table = {nullptr, nullptr};

#endif

}  // namespace ulpgrad::ULPGRAD_ISA
