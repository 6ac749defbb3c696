// The same with vectors: a score is summed up in the lanes of one, exponentials are a polynomial of sixteen at once,
// and rows of V are added to the row of results as they lie.
#include <cmath>

#include "attention.h"
#include "isa/attention_exp2.h"

namespace ulpgrad::ULPGRAD_ISA {

static float dot(const float* x, const float* y, int64_t size) {
  Vec<float> products{};
  int64_t p = 0;
  for (; p + kLanes<float> <= size; p += kLanes<float>) products += load(x + p) * load(y + p);
  float all = sum<float>(products);
  for (; p < size; ++p) all += x[p] * y[p];
  return all;
}

void attend_vectors(const LadderHead& x) {
  constexpr float log2e = 1.4426950408889634f;
  float* const row = x.work;
  for (int64_t i = 0; i < x.queries; ++i) {
    const int64_t seen = x.seen(i);
    float largest = -INFINITY;
    for (int64_t j = 0; j < seen; ++j) {
      row[j] = dot(x.q + i * x.size, x.k + j * x.size, x.size) * x.scale;
      largest = row[j] > largest ? row[j] : largest;
    }
    Vec<float> totals{};
    const int64_t whole = (seen + kLanes<float> - 1) / kLanes<float> * kLanes<float>;
    for (int64_t j = seen; j < whole; ++j) row[j] = -INFINITY;
    for (int64_t j = 0; j < whole; j += kLanes<float>) {
      const Vec<float> weights = exp2<float, true>(load(row + j), broadcast(log2e), broadcast(largest * log2e));
      store(row + j, weights);
      totals += weights;
    }
    float* __restrict y = x.y + i * x.value_size;
    const float total = sum<float>(totals);
    for (int64_t e = 0; e < x.value_size; ++e) y[e] = 0;
    for (int64_t j = 0; j < seen; ++j) {
      const float weight = row[j] / total;
      for (int64_t e = 0; e < x.value_size; ++e) y[e] += weight * x.v[j * x.value_size + e];
    }
    x.lse[i] = seen ? largest + logf(total) : -INFINITY;
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
