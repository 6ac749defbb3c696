// Register tiles of the convolution: outputs x pixels for the convolution itself, outputs x taps for its weights.
#include "conv.h"

#include <cstring>

#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int kOutputs = ULPGRAD_ISA_LEVEL == 2 ? 8 : 4;  // x 3 vectors of pixels: 24 or 12 sums
constexpr int kDotOutputs = 4;                            // x kDotTaps
constexpr int kDotTaps = ULPGRAD_ISA_LEVEL == 2 ? 6 : 3;

// outputs x (vectors * lanes) results in registers while k runs.
template <typename T, int outputs, int vectors>
ULPGRAD_INLINE void tile(const ConvBlock<T>& block, int64_t q) {
  using V = Vec<T>;
  V y[outputs][vectors];
#pragma GCC unroll 8
  for (int i = 0; i < outputs; ++i) {
    const V start = broadcast(block.bias ? block.bias[i] : T(0));
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) y[i][j] = start;
  }
  const T* a = block.a;
  const T* const at = block.x + q;
  for (int64_t p = 0; p < block.k; ++p, a += outputs) {
    const T* const from = at + block.offset[p];
    V x[vectors];
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) x[j] = load(from + j * kLanes<T>);
#pragma GCC unroll 8
    for (int i = 0; i < outputs; ++i) {
      const V w = broadcast(a[i]);
#pragma GCC unroll 8
      for (int j = 0; j < vectors; ++j) y[i][j] += w * x[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < outputs; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < vectors; ++j) store(block.y + i * block.y_row + q + j * kLanes<T>, y[i][j]);
  }
}

template <typename T, int outputs>
static void rows(const ConvBlock<T>& block) {
  constexpr int vectors = outputs <= 2 ? 6 : 3;  // few outputs need more pixels to hide the latency of a sum
  constexpr int64_t width = vectors * kLanes<T>;
  int64_t q = 0;
  for (; q + width <= block.q_count; q += width) tile<T, outputs, vectors>(block, q);
  for (; q < block.q_count; q += kLanes<T>) tile<T, outputs, 1>(block, q);
}

template <typename T, int outputs = kOutputs>
static void block(const ConvBlock<T>& b) {
  if constexpr (outputs > 1) {
    if (b.outputs < outputs) return block<T, outputs - 1>(b);
  }
  rows<T, outputs>(b);
}

template <typename T, int outputs, int taps>
static void dot_tile(const ConvDots<T>& d, int64_t i0, int64_t p0) {
  using V = Vec<T>;
  V sums[outputs][taps];
  const T* x[taps];
#pragma GCC unroll 8
  for (int j = 0; j < taps; ++j) x[j] = d.x + d.offset[p0 + j];
#pragma GCC unroll 8
  for (int i = 0; i < outputs; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < taps; ++j) sums[i][j] = V{};
  }
  const T* const g = d.g + i0 * d.g_row;
  for (int64_t q = 0; q < d.q_count; q += kLanes<T>) {
    V seen[taps];
#pragma GCC unroll 8
    for (int j = 0; j < taps; ++j) seen[j] = load(x[j] + q);
#pragma GCC unroll 8
    for (int i = 0; i < outputs; ++i) {
      const V gi = load(g + i * d.g_row + q);
#pragma GCC unroll 8
      for (int j = 0; j < taps; ++j) sums[i][j] += gi * seen[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < outputs; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < taps; ++j) d.sum[(i0 + i) * d.sum_row + p0 + j] += sum<T>(sums[i][j]);
  }
}

template <typename T, int outputs, int taps = kDotTaps>
static void dots_of_taps(const ConvDots<T>& d, int64_t i, int64_t p) {
  for (; p + taps <= d.k; p += taps) dot_tile<T, outputs, taps>(d, i, p);
  if constexpr (taps > 1) {
    if (p < d.k) dots_of_taps<T, outputs, taps - 1>(d, i, p);
  }
}

template <typename T, int outputs = kDotOutputs>
static void dots_of_outputs(const ConvDots<T>& d, int64_t i) {
  for (; i + outputs <= d.outputs; i += outputs) dots_of_taps<T, outputs>(d, i, 0);
  if constexpr (outputs > 1) {
    if (i < d.outputs) dots_of_outputs<T, outputs - 1>(d, i);
  }
}

template <typename T>
static void dots(const ConvDots<T>& d) {
  dots_of_outputs<T>(d, 0);
}

template <typename T, typename Bits, Bits infinity>
static bool all_finite(const T* x, int64_t n) {
  Bits found = 0;
  for (int64_t i = 0; i < n; ++i) {
    Bits bits;
    memcpy(&bits, x + i, sizeof(T));
    found |= (bits & infinity) == infinity;
  }
  return !found;
}

extern const ConvTable conv_table = {
    kOutputs,
    {block<float>, dots<float>, all_finite<float, uint32_t, 0x7f800000>},
    {block<double>, dots<double>, all_finite<double, uint64_t, 0x7ff0000000000000>},
};
static_assert(64 % kVectorBytes == 0, "callers pad to 64 bytes");

}  // namespace ulpgrad::ULPGRAD_ISA
