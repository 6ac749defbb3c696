// The zeros are written once around a copy of the image: no questions at the edges.
#include <algorithm>

#include "conv_ladder.h"

namespace ulpgrad::ULPGRAD_ISA {

void pad(const Windows& w, int64_t image, float* to) {
  std::fill(to, to + w.padded_size(), 0.0f);
  const float* from = w.x + image * w.channels * w.height * w.width;
  for (int64_t c = 0; c < w.channels; ++c) {
    float* const plane = to + (c * (w.height + 2 * w.top) + w.top) * w.pitch() + w.left;
    for (int64_t r = 0; r < w.height; ++r, from += w.width) std::copy(from, from + w.width, plane + r * w.pitch());
  }
}

void convolve_padded(const Windows& w) {
  float* const image = w.work;
  float* y = w.y;
  for (int64_t n = 0; n < w.images; ++n) {
    pad(w, n, image);
    for (int64_t o = 0; o < w.outputs; ++o) {
      for (int64_t r = 0; r < w.rows(); ++r) {
        for (int64_t q = 0; q < w.columns(); ++q) {
          const float* weight = w.weight + o * w.k();
          float sum = w.bias[o];
          for (int64_t c = 0; c < w.channels; ++c) {
            for (int64_t i = 0; i < w.kernel_rows; ++i) {
              const float* const from = image + (c * (w.height + 2 * w.top) + r + i) * w.pitch() + q;
              for (int64_t j = 0; j < w.kernel_columns; ++j) sum += *weight++ * from[j];
            }
          }
          *y++ = sum;
        }
      }
    }
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
