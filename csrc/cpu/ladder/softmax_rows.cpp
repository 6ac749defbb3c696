// Row by row: all steps on one row while it lies in the first cache. Memory is read and written once.
#include <cmath>
#include <limits>

#include "softmax.h"

namespace ulpgrad::ULPGRAD_ISA {

void softmax_rows(const SoftmaxRows& a) {
  for (int64_t i = 0; i < a.rows; ++i) {
    const float* const x = a.x + i * a.n;
    float* const y = a.y + i * a.n;
    float top = -std::numeric_limits<float>::infinity(), total = 0;
    for (int64_t j = 0; j < a.n; ++j) top = x[j] > top ? x[j] : top;
    for (int64_t j = 0; j < a.n; ++j) y[j] = std::exp(x[j] - top);
    for (int64_t j = 0; j < a.n; ++j) total += y[j];
    for (int64_t j = 0; j < a.n; ++j) y[j] /= total;
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
