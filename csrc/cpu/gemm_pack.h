// Packing: a panel of `width` rows (of A) or columns (of B) is laid out so that the tile kernel reads it front to back,
// whatever the strides of the matrix were. Missing lanes are zeros, so edge tiles need no code of their own.
#pragma once

#include <algorithm>

#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

// How far beyond a panel packing may write; what stands there is overwritten by the next panel.
constexpr int64_t kPackSlack = 16;

#if ULPGRAD_ISA_LEVEL >= 1

// out[p * width + l] = rows[l][p] for an 8x8 block; lanes from `count` on are zeros.
ULPGRAD_INLINE void transpose_block(const float* src, int64_t stride, int count, float* out, int64_t width) {
  __m256 r[8], t[8];
#pragma GCC unroll 8
  for (int l = 0; l < 8; ++l) r[l] = l < count ? _mm256_loadu_ps(src + l * stride) : _mm256_setzero_ps();
#pragma GCC unroll 4
  for (int l = 0; l < 4; ++l) {
    t[2 * l] = _mm256_unpacklo_ps(r[2 * l], r[2 * l + 1]);
    t[2 * l + 1] = _mm256_unpackhi_ps(r[2 * l], r[2 * l + 1]);
  }
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    r[4 * h + 0] = _mm256_shuffle_ps(t[4 * h + 0], t[4 * h + 2], 0x44);
    r[4 * h + 1] = _mm256_shuffle_ps(t[4 * h + 0], t[4 * h + 2], 0xEE);
    r[4 * h + 2] = _mm256_shuffle_ps(t[4 * h + 1], t[4 * h + 3], 0x44);
    r[4 * h + 3] = _mm256_shuffle_ps(t[4 * h + 1], t[4 * h + 3], 0xEE);
  }
#pragma GCC unroll 4
  for (int p = 0; p < 4; ++p) _mm256_storeu_ps(out + p * width, _mm256_permute2f128_ps(r[p], r[p + 4], 0x20));
#pragma GCC unroll 4
  for (int p = 0; p < 4; ++p) _mm256_storeu_ps(out + (p + 4) * width, _mm256_permute2f128_ps(r[p], r[p + 4], 0x31));
}

ULPGRAD_INLINE void transpose_block(const double* src, int64_t stride, int count, double* out, int64_t width) {
  __m256d r[4];
#pragma GCC unroll 4
  for (int l = 0; l < 4; ++l) r[l] = l < count ? _mm256_loadu_pd(src + l * stride) : _mm256_setzero_pd();
  const __m256d a = _mm256_unpacklo_pd(r[0], r[1]), b = _mm256_unpackhi_pd(r[0], r[1]);
  const __m256d c = _mm256_unpacklo_pd(r[2], r[3]), d = _mm256_unpackhi_pd(r[2], r[3]);
  _mm256_storeu_pd(out, _mm256_permute2f128_pd(a, c, 0x20));
  _mm256_storeu_pd(out + width, _mm256_permute2f128_pd(b, d, 0x20));
  _mm256_storeu_pd(out + 2 * width, _mm256_permute2f128_pd(a, c, 0x31));
  _mm256_storeu_pd(out + 3 * width, _mm256_permute2f128_pd(b, d, 0x31));
}

#else

template <typename T>
ULPGRAD_INLINE void transpose_block(const T* src, int64_t stride, int count, T* out, int64_t width) {
  constexpr int size = 32 / sizeof(T);
  for (int p = 0; p < size; ++p)
    for (int l = 0; l < size; ++l) out[p * width + l] = l < count ? src[l * stride + p] : T(0);
}

#endif

// Rows of the matrix run along k: transpose it in square blocks. A block that would stick out of the panel is moved
// back over lanes already done; in a panel narrower than a block, it writes zeros ahead of itself that the next step
// replaces.
template <typename T>
static void pack_transposed(int64_t width, int64_t count, int64_t k, const T* src, int64_t stride, T* out) {
  constexpr int64_t block = 32 / sizeof(T);
  const int64_t whole = k / block * block;
  for (int64_t l = 0; l < count; l += block) {
    const int64_t first = l + block > width && width >= block ? width - block : l;
    const int lanes = static_cast<int>(std::min(block, count - first));
    const T* from = src + first * stride;
    if (lanes == block) {
      for (int64_t p = 0; p < whole; p += block)
        transpose_block(from + p, stride, block, out + p * width + first, width);
    } else {
      for (int64_t p = 0; p < whole; p += block)
        transpose_block(from + p, stride, lanes, out + p * width + first, width);
    }
  }
  for (int64_t p = whole; p < k; ++p)
    for (int64_t l = 0; l < width; ++l) out[p * width + l] = l < count ? src[l * stride + p] : T(0);
  const int64_t done = (count + block - 1) / block * block;
  for (int64_t p = 0; p < whole; ++p)
    for (int64_t l = done; l < width; ++l) out[p * width + l] = T(0);
}

// out[p * width + l] = src[l * lane_stride + p * k_stride] for l < count, else 0.
template <typename T>
static void pack_panel(int64_t width, int64_t count, int64_t k, const T* src, int64_t lane_stride, int64_t k_stride,
                       T* out) {
  constexpr int lanes = kLanes<T>;
  if (lane_stride == 1 && count == width && width == 2 * lanes) {
    for (int64_t p = 0; p < k; ++p) {
      store(out + p * width, load(src + p * k_stride));
      store(out + p * width + lanes, load(src + p * k_stride + lanes));
    }
  } else if (k_stride == 1 && k >= 8 && count > 1) {
    pack_transposed(width, count, k, src, lane_stride, out);
  } else {
    for (int64_t p = 0; p < k; ++p) {
      for (int64_t l = 0; l < count; ++l) out[p * width + l] = src[l * lane_stride + p * k_stride];
      for (int64_t l = count; l < width; ++l) out[p * width + l] = T(0);
    }
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
