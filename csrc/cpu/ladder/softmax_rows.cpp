// Row by row: all steps on one row while it lies in the first cache. Memory is read and written once.
#include "isa/rows_math.h"
#include "isa/vector_math.h"
#include "softmax.h"

namespace ulpgrad::ULPGRAD_ISA {

void softmax_rows(const SoftmaxRows& a) {
  for (int64_t i = 0; i < a.rows; ++i) {
    const float* const x = a.x + i * a.n;
    float* __restrict const y = a.y + i * a.n;
    const float top = largest(x, a.n);
    for (int64_t j = 0; j < a.n; ++j) y[j] = vm::exp_of_shifted(x[j] - top);
    const float total = sum_of<float>(a.n, [&](const auto& at) { return at(y); });
    for (int64_t j = 0; j < a.n; ++j) y[j] /= total;
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
