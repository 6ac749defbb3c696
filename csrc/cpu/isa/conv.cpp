// Register tiles of the convolution: pixels x outputs for the convolution itself, taps x outputs for its weights, and
// the same with channels in lanes on both sides where each group has few.
#include "conv.h"

#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

#define ULPGRAD_TARGET

namespace singles {
using Unit = float;
#include "conv_tile_values.h"
}  // namespace singles

namespace doubles {
using Unit = double;
#include "conv_tile_values.h"
}  // namespace doubles

#undef ULPGRAD_TARGET

template <typename T, int pixels>
ULPGRAD_INLINE void lanes_tile(const ConvLanes<T>& r, int64_t q, int64_t lane) {
  Vec<T> sums[pixels];
  const T* const x = r.x + q * r.x_step + lane;
#pragma GCC unroll 16
  for (int i = 0; i < pixels; ++i) sums[i] = load(r.start + lane);
  for (int64_t p = 0; p < r.tap_count; ++p) {
    const T* const from = x + r.taps[p].offset;
    const Vec<T> w = load(r.w + r.taps[p].weight + lane);
#pragma GCC unroll 16
    for (int i = 0; i < pixels; ++i) sums[i] += load(from + i * r.x_step) * w;
  }
#pragma GCC unroll 16
  for (int i = 0; i < pixels; ++i) store(r.y + (q + i) * r.y_step + lane, sums[i]);
}

template <typename T, int pixels = kLanePixels>
static void lanes_tile_of(const ConvLanes<T>& r, int64_t q, int64_t lane, int64_t count) {
  if (count == pixels) return lanes_tile<T, pixels>(r, q, lane);
  if constexpr (pixels > 1) lanes_tile_of<T, pixels - 1>(r, q, lane, count);
}

template <typename T>
static void lanes_row(const ConvLanes<T>& r) {
  const int64_t tiles = (r.positions + kLanePixels - 1) / kLanePixels;
  for (int64_t lane = 0; lane < kConvBlock; lane += kLanes<T>) {
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t q = i * r.positions / tiles;
      lanes_tile_of<T>(r, q, lane, (i + 1) * r.positions / tiles - q);
    }
  }
}

template <typename T, int taps>
ULPGRAD_INLINE void lane_dots_tile(const ConvLaneDots<T>& d, int64_t p, int64_t lane) {
  Vec<T> sums[taps];
  const T* x[taps];
#pragma GCC unroll 16
  for (int i = 0; i < taps; ++i) {
    sums[i] = load(d.sum + (p + i) * kConvBlock + lane);
    x[i] = d.x + d.offset[p + i] + lane;
  }
  for (int64_t r = 0; r < d.rows; ++r) {
    const T* const g = d.g + r * d.g_row + lane;
    const int64_t at = r * d.x_row;
    for (int64_t q = 0; q < d.positions * kConvBlock; q += kConvBlock) {
      const Vec<T> gradient = load(g + q);
#pragma GCC unroll 16
      for (int i = 0; i < taps; ++i) sums[i] += load(x[i] + at + q) * gradient;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < taps; ++i) store(d.sum + (p + i) * kConvBlock + lane, sums[i]);
}

template <typename T>
static void lane_dots(const ConvLaneDots<T>& d) {
  for (int64_t lane = 0; lane < kConvBlock; lane += kLanes<T>) {
    int64_t p = 0;
    for (; p + 9 <= d.k; p += 9) lane_dots_tile<T, 9>(d, p, lane);
    for (; p + 3 <= d.k; p += 3) lane_dots_tile<T, 3>(d, p, lane);
    for (; p < d.k; ++p) lane_dots_tile<T, 1>(d, p, lane);
  }
}

extern const ConvTable conv_table = {
    {kLanes<float>,
     {0, singles::kPixels<1>, singles::kPixels<2>, 0, singles::kPixels<4>},
     singles::row,
     lanes_row<float>,
     singles::dots,
     lane_dots<float>},
    {kLanes<double>,
     {0, doubles::kPixels<1>, doubles::kPixels<2>, 0, doubles::kPixels<4>},
     doubles::row,
     lanes_row<double>,
     doubles::dots,
     lane_dots<double>},
};

}  // namespace ulpgrad::ULPGRAD_ISA
