// Maximum and sum in vector lanes: a compiler may not reorder them, so each was one chain of steps that wait for each
// other. The order chosen here is fixed: lane by lane, then across.
#include "isa/rows_math.h"
#include "isa/vector_math.h"
#include "softmax.h"

namespace ulpgrad::ULPGRAD_ISA {

void softmax_lanes(const SoftmaxRows& a) {
  for (int64_t i = 0; i < a.rows; ++i) {
    const float top = largest(a.x + i * a.n, a.n);
    for (int64_t j = 0; j < a.n; ++j) a.y[i * a.n + j] = a.x[i * a.n + j] - top;
  }
  for (int64_t k = 0; k < a.rows * a.n; ++k) a.y[k] = vm::exp_of_shifted(a.y[k]);
  for (int64_t i = 0; i < a.rows; ++i) {
    float* const y = a.y + i * a.n;
    const float total = sum_of<float>(a.n, [&](const auto& at) { return at(y); });
    for (int64_t j = 0; j < a.n; ++j) y[j] /= total;
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
