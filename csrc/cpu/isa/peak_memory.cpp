// Sweeps over memory, eight vectors a step, without arithmetic that could be slower than the loads.
#include "peak.h"
#include "simd.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace ulpgrad::ULPGRAD_ISA {

using Floats = Vec<float>;
constexpr int kVectors = 8;
constexpr int64_t kStep = kVectors * kLanes<float>;
static_assert(kSweepStep % kStep == 0);

// Makes every pass a pass of its own.
ULPGRAD_INLINE void separate() { __asm__ volatile("" ::: "memory"); }

template <bool past>
ULPGRAD_INLINE void put(float* p, Floats v) {
#if ULPGRAD_ISA_LEVEL == 2
  if (past) return _mm512_stream_ps(p, v);
#elif ULPGRAD_ISA_LEVEL == 1
  if (past) return _mm256_stream_ps(p, v);
#elif defined(__SSE2__)
  if (past) return _mm_stream_ps(p, v);
#endif
  store(p, v);
}

static void read(const float* x, int64_t n, int64_t passes) {
  Vec<int32_t> seen[kVectors] = {};
  for (int64_t pass = 0; pass < passes; ++pass) {
    for (int64_t i = 0; i < n; i += kStep) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) seen[v] |= reinterpret_cast<Vec<int32_t>>(load(x + i + v * kLanes<float>));
    }
    separate();
  }
#pragma GCC unroll 8
  for (int v = 1; v < kVectors; ++v) seen[0] |= seen[v];
  __asm__ volatile("" ::"r"(seen[0][0]));
}

template <bool past>
static void write(float* out, int64_t n, int64_t passes) {
  const Floats one = broadcast(1.0f);
  for (int64_t pass = 0; pass < passes; ++pass) {
    for (int64_t i = 0; i < n; i += kStep) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) put<past>(out + i + v * kLanes<float>, one);
    }
    separate();
  }
}

template <bool past>
static void copy(float* out, const float* x, int64_t n, int64_t passes) {
  for (int64_t pass = 0; pass < passes; ++pass) {
    for (int64_t i = 0; i < n; i += kStep) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) put<past>(out + i + v * kLanes<float>, load(x + i + v * kLanes<float>));
    }
    separate();
  }
}

template <bool past>
static void triad(float* out, const float* x, const float* y, int64_t n, int64_t passes) {
  const Floats three = broadcast(3.0f);
  for (int64_t pass = 0; pass < passes; ++pass) {
    for (int64_t i = 0; i < n; i += kStep) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const int64_t at = i + v * kLanes<float>;
        put<past>(out + at, load(x + at) + three * load(y + at));
      }
    }
    separate();
  }
}

#ifdef __SSE2__
extern const SweepTable sweep_table = {read,        write<false>, copy<false>, triad<false>,
                                       write<true>, copy<true>,   triad<true>};
#else
extern const SweepTable sweep_table = {read, write<false>, copy<false>, triad<false>, nullptr, nullptr, nullptr};
#endif

}  // namespace ulpgrad::ULPGRAD_ISA
