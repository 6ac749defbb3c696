// The chains become lanes of vectors: up to sixteen running sums in each of four registers, so that one instruction
// adds sixteen values and none waits. As many sums of few values each lose few digits, so float32 will do; after 128
// additions a lane is put aside. The order is our own, which a compiler may not choose.
#include <algorithm>

#include "simd.h"
#include "sum.h"

namespace ulpgrad::ULPGRAD_ISA {

void sum_lanes(const SumRows& a) {
  constexpr int lanes = kLanes<float>, chains = 4, block = 128 * chains * lanes;
  for (int64_t i = 0; i < a.rows; ++i) {
    const float* const x = a.x + i * a.n;
    float total = 0;
    for (int64_t j = 0; j < a.n;) {
      const int64_t end = std::min(j + block, a.n);
      Vec<float> sums[chains] = {};
      for (; j + chains * lanes <= end; j += chains * lanes) {
#pragma GCC unroll 4
        for (int c = 0; c < chains; ++c) sums[c] += load(x + j + c * lanes);
      }
      for (; j + lanes <= end; j += lanes) sums[0] += load(x + j);
      float parts[lanes];
      store(parts, (sums[0] + sums[1]) + (sums[2] + sums[3]));
      for (int half = lanes / 2; half > 0; half /= 2)
        for (int k = 0; k < half; ++k) parts[k] += parts[k + half];
      for (; j < end; ++j) parts[0] += x[j];
      total += parts[0];
    }
    a.y[i] = total;
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
