// Twelve vectors that depend only on themselves: enough to fill two units of latency four or five, and with the two
// operands they still fit the sixteen registers of AVX2.
#include "peak.h"

#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int kChains = 12;

template <typename T>
static T fma(int64_t rounds, T a, T b) {
  const Vec<T> va = broadcast<T>(a), vb = broadcast<T>(b);
  Vec<T> x[kChains];
#pragma GCC unroll 12
  for (int i = 0; i < kChains; ++i) x[i] = broadcast<T>(static_cast<T>(i));
  for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) x[i] = x[i] * va + vb;
  }
  Vec<T> total = x[0];
#pragma GCC unroll 12
  for (int i = 1; i < kChains; ++i) total += x[i];
  return sum<T>(total);
}

extern const PeakTable peak_table = {fma<float>, fma<double>, kChains * kLanes<float>, kChains * kLanes<double>};

}  // namespace ulpgrad::ULPGRAD_ISA
