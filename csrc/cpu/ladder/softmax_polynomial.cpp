// exp without a call: 2^n times a polynomial of the rest, straight-line code that the compiler turns into vectors.
#include <limits>

#include "isa/vector_math.h"
#include "softmax.h"

namespace ulpgrad::ULPGRAD_ISA {

void softmax_polynomial(const SoftmaxRows& a) {
  for (int64_t i = 0; i < a.rows; ++i) {
    float top = -std::numeric_limits<float>::infinity();
    for (int64_t j = 0; j < a.n; ++j) top = a.x[i * a.n + j] > top ? a.x[i * a.n + j] : top;
    for (int64_t j = 0; j < a.n; ++j) a.y[i * a.n + j] = a.x[i * a.n + j] - top;
  }
  for (int64_t k = 0; k < a.rows * a.n; ++k) a.y[k] = vm::exp_of_shifted(a.y[k]);
  for (int64_t i = 0; i < a.rows; ++i) {
    float total = 0;
    for (int64_t j = 0; j < a.n; ++j) total += a.y[i * a.n + j];
    for (int64_t j = 0; j < a.n; ++j) a.y[i * a.n + j] /= total;
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
