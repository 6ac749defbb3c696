// The definition: for each output, all that its window sees, and a question at every step whether that lies on the
// image.
#include "conv_ladder.h"

namespace ulpgrad::ULPGRAD_ISA {

static float window(const Windows& w, int64_t n, int64_t o, int64_t row, int64_t column) {
  const float* weight = w.weight + o * w.k();
  float sum = w.bias[o];
  for (int64_t c = 0; c < w.channels; ++c) {
    const float* const image = w.x + (n * w.channels + c) * w.height * w.width;
    for (int64_t i = 0; i < w.kernel_rows; ++i) {
      for (int64_t j = 0; j < w.kernel_columns; ++j, ++weight) {
        const int64_t y = row + i - w.top, x = column + j - w.left;
        if (y >= 0 && y < w.height && x >= 0 && x < w.width) sum += *weight * image[y * w.width + x];
      }
    }
  }
  return sum;
}

void convolve_loops(const Windows& w) {
  float* y = w.y;
  for (int64_t n = 0; n < w.images; ++n) {
    for (int64_t o = 0; o < w.outputs; ++o) {
      for (int64_t r = 0; r < w.rows(); ++r) {
        for (int64_t q = 0; q < w.columns(); ++q) *y++ = window(w, n, o, r, q);
      }
    }
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
