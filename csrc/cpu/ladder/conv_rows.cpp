// The same loops in another order: a weight times a row of pixels is added to a row of outputs. Its steps do not depend
// on each other, so that the compiler uses vectors.
#include <algorithm>

#include "conv_ladder.h"

namespace ulpgrad::ULPGRAD_ISA {

void convolve_rows(const Windows& w) {
  float* const image = w.work;
  for (int64_t n = 0; n < w.images; ++n) {
    pad(w, n, image);
    for (int64_t o = 0; o < w.outputs; ++o) {
      for (int64_t r = 0; r < w.rows(); ++r) {
        const float* weight = w.weight + o * w.k();
        float* __restrict y = w.y + ((n * w.outputs + o) * w.rows() + r) * w.columns();
        std::fill(y, y + w.columns(), w.bias[o]);
        for (int64_t c = 0; c < w.channels; ++c) {
          for (int64_t i = 0; i < w.kernel_rows; ++i) {
            const float* const from = image + (c * (w.height + 2 * w.top) + r + i) * w.pitch();
            for (int64_t j = 0; j < w.kernel_columns; ++j) {
              const float scale = *weight++;
              for (int64_t q = 0; q < w.columns(); ++q) y[q] += scale * from[j + q];
            }
          }
        }
      }
    }
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
