// A strip of one output's row stays in registers until all its weights have been added: no sum is loaded or stored on
// the way.
#include "conv_ladder.h"
#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

void convolve_registers(const Windows& w) {
  constexpr int64_t width = kLanes<float>;
  float *const image = w.work, *const strip = image + w.padded_size();
  for (int64_t n = 0; n < w.images; ++n) {
    pad(w, n, image);
    for (int64_t o = 0; o < w.outputs; ++o) {
      for (int64_t r = 0; r < w.rows(); ++r) {
        float* const y = w.y + ((n * w.outputs + o) * w.rows() + r) * w.columns();
        for (int64_t q = 0; q < w.columns(); q += 2 * width) {
          const float* weight = w.weight + o * w.k();
          Vec<float> first = broadcast(w.bias[o]), second = first;
          for (int64_t c = 0; c < w.channels; ++c) {
            for (int64_t i = 0; i < w.kernel_rows; ++i) {
              const float* const from = image + (c * (w.height + 2 * w.top) + r + i) * w.pitch() + q;
              for (int64_t j = 0; j < w.kernel_columns; ++j) {
                const Vec<float> scale = broadcast(*weight++);
                first += scale * load(from + j);
                second += scale * load(from + j + width);
              }
            }
          }
          store(strip, first);
          store(strip + width, second);
          for (int64_t i = 0; i < 2 * width && q + i < w.columns(); ++i) y[q + i] = strip[i];
        }
      }
    }
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
