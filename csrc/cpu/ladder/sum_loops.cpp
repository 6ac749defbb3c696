// The definition: one running sum. In float32 a chain of a thousand additions would lose more digits than the op
// allows, so it is a double. Sums of floats depend on their order, which a compiler may not change: every addition
// waits for the one before.
#include "sum.h"

namespace ulpgrad::ULPGRAD_ISA {

void sum_loops(const SumRows& a) {
  for (int64_t i = 0; i < a.rows; ++i) {
    double total = 0;
    for (int64_t j = 0; j < a.n; ++j) total += a.x[i * a.n + j];
    a.y[i] = static_cast<float>(total);
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
