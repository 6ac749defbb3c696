// exp without a call: 2^n times a polynomial of the rest, straight-line code that the compiler turns into vectors.
#include <limits>

#include "isa/vector_math.h"
#include "softmax.h"

namespace ulpgrad::ULPGRAD_ISA {

void softmax_polynomial(const SoftmaxRows& a) {
  for (int64_t i = 0; i < a.rows; ++i) {
    const float* const x = a.x + i * a.n;
    float* __restrict const y = a.y + i * a.n;
    float top = -std::numeric_limits<float>::infinity(), total = 0;
    for (int64_t j = 0; j < a.n; ++j) top = x[j] > top ? x[j] : top;
    for (int64_t j = 0; j < a.n; ++j) y[j] = vm::exp_of_shifted(x[j] - top);
    for (int64_t j = 0; j < a.n; ++j) total += y[j];
    for (int64_t j = 0; j < a.n; ++j) y[j] /= total;
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
