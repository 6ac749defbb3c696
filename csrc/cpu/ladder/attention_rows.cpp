// One query after the other: its row of scores, their softmax, and the values weighed by it. There is no matrix of
// scores, only a row of it.
#include <cmath>

#include "attention.h"

namespace ulpgrad::ULPGRAD_ISA {

void attend_rows(const LadderHead& x) {
  float* const row = x.work;
  for (int64_t i = 0; i < x.queries; ++i) {
    const int64_t seen = x.seen(i);
    float largest = -INFINITY, total = 0;
    for (int64_t j = 0; j < seen; ++j) {
      float score = 0;
      for (int64_t p = 0; p < x.size; ++p) score += x.q[i * x.size + p] * x.k[j * x.size + p];
      row[j] = score * x.scale;
      largest = row[j] > largest ? row[j] : largest;
    }
    for (int64_t j = 0; j < seen; ++j) {
      row[j] = expf(row[j] - largest);
      total += row[j];
    }
    float* const y = x.y + i * x.value_size;
    for (int64_t e = 0; e < x.value_size; ++e) y[e] = 0;
    for (int64_t j = 0; j < seen; ++j) {
      const float weight = row[j] / total;
      for (int64_t e = 0; e < x.value_size; ++e) y[e] += weight * x.v[j * x.value_size + e];
    }
    x.lse[i] = seen ? largest + logf(total) : -INFINITY;
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
