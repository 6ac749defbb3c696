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

constexpr int kLaneTaps = 9;  // most of a tile of sums: those of a 3 x 3 filter

template <typename T, int taps>
ULPGRAD_INLINE void lane_dots_tile(const ConvLaneDots<T>& d, const ConvLaneTap* tap, int64_t lane) {
  Vec<T> sums[taps] = {};
  const T* x[taps];
#pragma GCC unroll 16
  for (int i = 0; i < taps; ++i) x[i] = d.x + tap[i].offset + lane;
  for (int64_t r = 0; r < d.rows; ++r) {
    const T* g = d.g + r * d.g_row + lane;
    int64_t at = r * d.x_row;
    for (int64_t q = 0; q < d.positions; ++q, g += d.g_step, at += d.x_step) {
      const Vec<T> gradient = load(g);
#pragma GCC unroll 16
      for (int i = 0; i < taps; ++i) sums[i] += load(x[i] + at) * gradient;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < taps; ++i) {
    T* const to = d.sum + tap[i].weight + lane;
    store(to, load(to) + sums[i]);
  }
}

template <typename T, int taps = kLaneTaps>
static void lane_dots_of(const ConvLaneDots<T>& d, const ConvLaneTap* tap, int64_t lane, int64_t count) {
  if (count == taps) return lane_dots_tile<T, taps>(d, tap, lane);
  if constexpr (taps > 1) lane_dots_of<T, taps - 1>(d, tap, lane, count);
}

template <typename T>
static void lane_dots(const ConvLaneDots<T>& d) {
  const int64_t tiles = (d.tap_count + kLaneTaps - 1) / kLaneTaps;
  for (int64_t lane = 0; lane < kConvBlock; lane += kLanes<T>) {
    for (int64_t i = 0; i < tiles; ++i) {
      const int64_t p = i * d.tap_count / tiles;
      lane_dots_of<T>(d, d.taps + p, lane, (i + 1) * d.tap_count / tiles - p);
    }
  }
}

extern const ConvTable conv_table = {
    {kLanes<float>,
     {0, singles::kPixels<1>, singles::kPixels<2>, 0, singles::kPixels<4>},
     singles::kOutputs,
     singles::row,
     singles::pixels_by,
     lanes_row<float>,
     singles::dots,
     lane_dots<float>},
    {kLanes<double>,
     {0, doubles::kPixels<1>, doubles::kPixels<2>, 0, doubles::kPixels<4>},
     doubles::kOutputs,
     doubles::row,
     doubles::pixels_by,
     lanes_row<double>,
     doubles::dots,
     lane_dots<double>},
};

}  // namespace ulpgrad::ULPGRAD_ISA
