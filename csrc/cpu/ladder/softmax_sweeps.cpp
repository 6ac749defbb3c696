// One sweep fewer, and no divisions: values are added up as they are made, and multiplied by the sum's reciprocal. With
// vectors spelled out, exp scales by one instruction where the machine has it.
#include "isa/rows_math.h"
#include "isa/vector_math.h"
#include "softmax.h"

namespace ulpgrad::ULPGRAD_ISA {

void softmax_sweeps(const SoftmaxRows& a) {
  for (int64_t i = 0; i < a.rows; ++i) {
    const float* const x = a.x + i * a.n;
    float* const y = a.y + i * a.n;
    const float top = largest(x, a.n);
    const float total = sum_of<float>(a.n, [&](const auto& at) {
      const Vec<float> e = vm::exp_of_shifted(at(x) - top);
      at.put(y, e);
      return e;
    });
    const float scale = 1 / total;
    each<float>(a.n, [&](const auto& at) { at.put(y, at(y) * scale); });
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
