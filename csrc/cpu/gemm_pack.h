// Packing: a panel of `width` rows (of A) or columns (of B) is laid out so that the tile kernel reads it front to back,
// whatever the strides and the type of the matrix were. Missing lanes are zeros, so edge tiles need no code of their
// own.
#pragma once

#include <algorithm>

#include "gemm_math.h"

namespace ulpgrad::ULPGRAD_ISA {

// How far beyond a panel packing may write; what stands there is overwritten by the next panel.
constexpr int64_t kPackSlack = 16;

// One packed value of a lane, read at `p`; `whole`: whether both values of a pair are there.
template <typename Math>
ULPGRAD_INLINE typename Math::Packed pack_one(const typename Math::Value* p, int64_t k_stride, bool whole) {
  if constexpr (Math::depth == 2) {
    return p[0].bits | (whole ? uint32_t(p[k_stride].bits) << 16 : 0);
  } else {
    (void)k_stride, (void)whole;
    return widen(*p);
  }
}

// The packed values of `count` lanes that stand side by side.
template <typename Math>
ULPGRAD_INLINE Vec<typename Math::Packed> pack_lanes(const typename Math::Value* p, int64_t k_stride, bool whole,
                                                     int64_t count) {
  constexpr int lanes = kLanes<typename Math::Packed>;
  if constexpr (Math::depth == 2) {
    const Vec<uint32_t> even = spread(count >= lanes ? load_codes(p) : load_codes(p, count));
    if (!whole) return even;
    return even | spread(count >= lanes ? load_codes(p + k_stride) : load_codes(p + k_stride, count)) << 16;
  } else {
    (void)k_stride, (void)whole;
    return count >= lanes ? load_wide(p) : load_wide_some(p, count);
  }
}

#if ULPGRAD_ISA_LEVEL >= 1

// A row of a square block: 32 bytes of packed values along k.
ULPGRAD_INLINE __m256 block_row(const float* p) { return _mm256_loadu_ps(p); }
ULPGRAD_INLINE __m256d block_row(const double* p) { return _mm256_loadu_pd(p); }
ULPGRAD_INLINE __m256 block_row(const Float16* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
ULPGRAD_INLINE __m256 block_row(const Bfloat16* p) {
  const __m256i codes = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(codes, 16));
}

template <typename Math>
ULPGRAD_INLINE auto packed_row(const typename Math::Value* p) {
  if constexpr (Math::depth == 2) {
    return block_row(reinterpret_cast<const float*>(p));  // pairs along k stand side by side already
  } else {
    return block_row(p);
  }
}

// out[p * width + l] = row[l][p], 8 x 8 values of four bytes.
ULPGRAD_INLINE void store_transposed(__m256 (&r)[8], float* out, int64_t width) {
  __m256 t[8];
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

ULPGRAD_INLINE void store_transposed(__m256d (&r)[4], double* out, int64_t width) {
  const __m256d a = _mm256_unpacklo_pd(r[0], r[1]), b = _mm256_unpackhi_pd(r[0], r[1]);
  const __m256d c = _mm256_unpacklo_pd(r[2], r[3]), d = _mm256_unpackhi_pd(r[2], r[3]);
  _mm256_storeu_pd(out, _mm256_permute2f128_pd(a, c, 0x20));
  _mm256_storeu_pd(out + width, _mm256_permute2f128_pd(b, d, 0x20));
  _mm256_storeu_pd(out + 2 * width, _mm256_permute2f128_pd(a, c, 0x31));
  _mm256_storeu_pd(out + 3 * width, _mm256_permute2f128_pd(b, d, 0x31));
}

// Packs a square block of lanes x steps; lanes from `count` on are zeros.
template <typename Math>
ULPGRAD_INLINE void pack_block(const typename Math::Value* src, int64_t stride, int count, typename Math::Packed* out,
                               int64_t width) {
  using Row = decltype(packed_row<Math>(src));
  constexpr int size = 32 / sizeof(typename Math::Packed);
  Row rows[size];
#pragma GCC unroll 8
  for (int l = 0; l < size; ++l) rows[l] = l < count ? packed_row<Math>(src + l * stride) : Row{};
  if constexpr (Math::depth == 2) {
    store_transposed(rows, reinterpret_cast<float*>(out), width);
  } else {
    store_transposed(rows, out, width);
  }
}

#else

template <typename Math>
ULPGRAD_INLINE void pack_block(const typename Math::Value* src, int64_t stride, int count, typename Math::Packed* out,
                               int64_t width) {
  constexpr int size = 32 / sizeof(typename Math::Packed);
  for (int p = 0; p < size; ++p)
    for (int l = 0; l < size; ++l)
      out[p * width + l] =
          l < count ? pack_one<Math>(src + l * stride + p * Math::depth, 1, true) : typename Math::Packed(0);
}

#endif

// The matrix runs along k: transpose it in square blocks. A block that would stick out of the panel is moved back over
// lanes already done; in a panel narrower than a block, it writes zeros ahead of itself that the next step replaces.
// Returns how many packed steps are done.
template <typename Math>
static int64_t pack_transposed(int64_t width, int64_t count, int64_t k, const typename Math::Value* src, int64_t stride,
                               typename Math::Packed* out) {
  constexpr int64_t block = 32 / sizeof(typename Math::Packed);
  const int64_t whole = k / Math::depth / block * block;
  for (int64_t l = 0; l < count; l += block) {
    const int64_t first = l + block > width && width >= block ? width - block : l;
    const int lanes = static_cast<int>(std::min(block, count - first));
    const auto* from = src + first * stride;
    if (lanes == block) {
      for (int64_t p = 0; p < whole; p += block)
        pack_block<Math>(from + p * Math::depth, stride, block, out + p * width + first, width);
    } else {
      for (int64_t p = 0; p < whole; p += block)
        pack_block<Math>(from + p * Math::depth, stride, lanes, out + p * width + first, width);
    }
  }
  const int64_t done = (count + block - 1) / block * block;
  for (int64_t p = 0; p < whole; ++p)
    for (int64_t l = done; l < width; ++l) out[p * width + l] = 0;
  return whole;
}

// Packs `count` lanes that stand side by side into panels of `width`, `panel` values apart. Row by row of the matrix:
// what stands together there is read together.
template <typename Math>
static void pack_rows(int64_t width, int64_t count, int64_t k, const typename Math::Value* src, int64_t k_stride,
                      typename Math::Packed* out, int64_t panel) {
  constexpr int lanes = kLanes<typename Math::Packed>;
  constexpr int64_t depth = Math::depth;
  for (int64_t p = 0; p * depth < k; ++p) {
    const auto* from = src + p * depth * k_stride;
    const bool whole = (p + 1) * depth <= k;
    auto* to = out + p * width;
    for (int64_t l = 0; l < count; l += width, to += panel)
      for (int64_t v = 0; v < width; v += lanes)
        store(to + v, pack_lanes<Math>(from + l + v, k_stride, whole, std::max<int64_t>(0, count - l - v)));
  }
}

// Packs k values (the last pair may be half) of `count` lanes: out[p * width + l] is what stands at
// src[l * lane_stride + p * depth * k_stride], 0 for l >= count.
template <typename Math>
static void pack_panel(int64_t width, int64_t count, int64_t k, const typename Math::Value* src, int64_t lane_stride,
                       int64_t k_stride, typename Math::Packed* out) {
  constexpr int64_t depth = Math::depth;
  const int64_t steps = (k + depth - 1) / depth;
  if (lane_stride == 1 && count > 1) return pack_rows<Math>(width, count, k, src, k_stride, out, 0);
  int64_t p = k_stride == 1 && k >= 8 && count > 1 ? pack_transposed<Math>(width, count, k, src, lane_stride, out) : 0;
  for (; p < steps; ++p) {
    const auto* from = src + p * depth * k_stride;
    const bool whole = (p + 1) * depth <= k;
    for (int64_t l = 0; l < count; ++l) out[p * width + l] = pack_one<Math>(from + l * lane_stride, k_stride, whole);
    for (int64_t l = count; l < width; ++l) out[p * width + l] = 0;
  }
}

#if ULPGRAD_ISA_LEVEL == 2

// Whether words of packed pairs hold a bfloat16 other than 0 that is below 2^-56. Of larger ones, no product comes near
// the subnormal numbers, which VDPBF16PS takes for zeros, and no sum does by more than the tolerance of matmul.
static bool holds_tiny(const uint32_t* words, int64_t count) {
  typedef uint16_t Halves __attribute__((vector_size(kVectorBytes)));
  constexpr int lanes = kLanes<uint32_t>;
  constexpr uint16_t tiny = (127 - 56) << 8;  // twice the code: without its sign
  Halves found = {};
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const Halves twice = (Halves)load(words + i) << 1;
    found |= (Halves)((Halves)(twice - 1) < static_cast<uint16_t>(tiny - 1));
  }
  for (; i < count; ++i)
    for (const uint32_t half : {words[i] & 0x7FFF, words[i] >> 16 & 0x7FFF})
      if (half && 2 * half < tiny) return true;
  const Vec<uint64_t> any = (Vec<uint64_t>)found;
  uint64_t all = 0;
  for (int l = 0; l < kLanes<uint64_t>; ++l) all |= any[l];
  return all != 0;
}

#endif

}  // namespace ulpgrad::ULPGRAD_ISA
