// The definition, a pass over the whole array for each step. Shifting by the maximum keeps exp from overflowing.
#include <cmath>
#include <limits>

#include "softmax.h"

namespace ulpgrad::ULPGRAD_ISA {

void softmax_passes(const SoftmaxRows& a) {
  for (int64_t i = 0; i < a.rows; ++i) {
    float top = -std::numeric_limits<float>::infinity();
    for (int64_t j = 0; j < a.n; ++j) top = a.x[i * a.n + j] > top ? a.x[i * a.n + j] : top;
    for (int64_t j = 0; j < a.n; ++j) a.y[i * a.n + j] = a.x[i * a.n + j] - top;
  }
  for (int64_t k = 0; k < a.rows * a.n; ++k) a.y[k] = std::exp(a.y[k]);
  for (int64_t i = 0; i < a.rows; ++i) {
    float total = 0;
    for (int64_t j = 0; j < a.n; ++j) total += a.y[i * a.n + j];
    for (int64_t j = 0; j < a.n; ++j) a.y[i * a.n + j] /= total;
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
