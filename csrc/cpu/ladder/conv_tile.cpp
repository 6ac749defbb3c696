// Outputs x pixels are summed in registers from the first channel to the last. What a window sees is a list of offsets
// that is the same for all windows, so that a padded image is one long row: where a row ends, the sums of what lies
// across the edge are thrown away.
#include <algorithm>

#include "conv_ladder.h"
#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int kVectors = ULPGRAD_ISA_LEVEL == 2 ? 3 : 1;  // 8 x 3 sums of 32 registers, or 8 x 1 of 16

template <int outputs>
static void tile(const Windows& w, const float* x, const int64_t* offset, const float* weight, float* y) {
  Vec<float> sums[outputs][kVectors] = {};
  for (int64_t p = 0; p < w.k(); ++p) {
    Vec<float> seen[kVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) seen[j] = load(x + offset[p] + j * kLanes<float>);
#pragma GCC unroll 8
    for (int i = 0; i < outputs; ++i) {
      const Vec<float> scale = broadcast(weight[i * w.k() + p]);
#pragma GCC unroll 4
      for (int j = 0; j < kVectors; ++j) sums[i][j] += scale * seen[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < outputs; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < kVectors; ++j) store(y + i * w.sums_row() + j * kLanes<float>, sums[i][j]);
  }
}

static void take(const Windows& w, int64_t n, int64_t o, const float* sums) {
  float* y = w.y + (n * w.outputs + o) * w.rows() * w.columns();
  for (int64_t r = 0; r < w.rows(); ++r, sums += w.pitch(), y += w.columns()) {
    for (int64_t q = 0; q < w.columns(); ++q) y[q] = sums[q] + w.bias[o];
  }
}

void convolve_tiles(const Windows& w, int64_t begin, int64_t end, float* memory) {
  constexpr int64_t width = kVectors * kLanes<float>, most = Windows::kTile;
  float *const image = memory, *const sums = image + w.padded_size();
  int64_t* const offset = reinterpret_cast<int64_t*>(sums + most * w.sums_row());
  int64_t* at = offset;
  for (int64_t c = 0; c < w.channels; ++c) {
    for (int64_t i = 0; i < w.kernel_rows; ++i) {
      for (int64_t j = 0; j < w.kernel_columns; ++j) *at++ = (c * (w.height + 2 * w.top) + i) * w.pitch() + j;
    }
  }
  for (int64_t n = begin; n < end; ++n) {
    pad(w, n, image);
    for (int64_t o = 0; o < w.outputs; o += most) {
      const int64_t count = std::min(most, w.outputs - o);
      for (int64_t q = 0; q < w.positions(); q += width) {
        if (count == most) {
          tile<most>(w, image + q, offset, w.weight + o * w.k(), sums + q);
        } else {
          for (int64_t i = 0; i < count; ++i) {
            tile<1>(w, image + q, offset, w.weight + (o + i) * w.k(), sums + i * w.sums_row() + q);
          }
        }
      }
      for (int64_t i = 0; i < count; ++i) take(w, n, o + i, sums + i * w.sums_row());
    }
  }
}

void convolve_tile(const Windows& w) { convolve_tiles(w, 0, w.images, w.work); }

}  // namespace ulpgrad::ULPGRAD_ISA
