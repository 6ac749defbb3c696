// Four running sums, each over a quarter of the row: their additions do not wait for each other. An addition takes
// three or four cycles, but one or two may begin in every cycle.
#include "sum.h"

namespace ulpgrad::ULPGRAD_ISA {

void sum_chains(const SumRows& a) {
  const int64_t quarter = a.n / 4;
  for (int64_t i = 0; i < a.rows; ++i) {
    const float *x0 = a.x + i * a.n, *x1 = x0 + quarter, *x2 = x1 + quarter, *x3 = x2 + quarter;
    double s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (int64_t j = 0; j < quarter; ++j) {
      s0 += x0[j];
      s1 += x1[j];
      s2 += x2[j];
      s3 += x3[j];
    }
    for (int64_t j = 4 * quarter; j < a.n; ++j) s0 += x0[j];
    a.y[i] = static_cast<float>((s0 + s1) + (s2 + s3));
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
