// Register tiles of the convolution: pixels x outputs for the convolution itself, taps x outputs for its weights, and
// the same with channels in lanes on both sides where each group has few.
#include "conv.h"

#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int kLanePixels = ULPGRAD_ISA_LEVEL == 2 ? 12 : 8;

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
  const T* const x = r.x + q * kConvBlock + lane;
#pragma GCC unroll 16
  for (int i = 0; i < pixels; ++i) sums[i] = load(r.start + lane);
  for (int64_t p = 0; p < r.k; ++p) {
    const T* const from = x + r.offset[p];
    const Vec<T> w = load(r.w + p * kConvBlock + lane);
#pragma GCC unroll 16
    for (int i = 0; i < pixels; ++i) sums[i] += load(from + i * kConvBlock) * w;
  }
#pragma GCC unroll 16
  for (int i = 0; i < pixels; ++i) store(r.y + (q + i) * kConvBlock + lane, sums[i]);
}

template <typename T>
static void lanes_row(const ConvLanes<T>& r) {
  for (int64_t lane = 0; lane < kConvBlock; lane += kLanes<T>) {
    int64_t q = 0;
    for (; q + kLanePixels <= r.positions; q += kLanePixels) lanes_tile<T, kLanePixels>(r, q, lane);
    for (; q + 4 <= r.positions; q += 4) lanes_tile<T, 4>(r, q, lane);
    for (; q < r.positions; ++q) lanes_tile<T, 1>(r, q, lane);
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
