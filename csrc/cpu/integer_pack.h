// Packing: the lanes of a panel (rows of A or columns of B) are laid out unit by unit, so that a tile reads them front
// to back, whatever the strides of the matrix were. A unit is 32 bits: four codes as bytes, two as 16-bit values, or
// one (`per`).
#pragma once

#include <algorithm>

#include "integer.h"
#include "integer_vector.h"

namespace ulpgrad::ULPGRAD_ISA {

// How far beyond a panel packing may write; what stands there is written later.
constexpr int64_t kUnitSlack = 16;

constexpr int64_t kAhead = 32;  // rows that are fetched ahead of packing

// One operand's panel within a segment: `count` of `width` lanes are there, the others are zeros.
template <typename T>
struct Panel {
  const T* from;
  int64_t lane_stride, k_stride, count, width;
  int64_t readable;  // lanes that may be read: more than count where others follow
  uint32_t flip;     // of a unit: 0x80808080 moves bytes from the signed to the unsigned range, or back
  bool halves;       // units of high bytes and of low bytes, in turn
};

// Bits of a unit that hold the first `valid` codes.
template <int per>
ULPGRAD_INLINE uint32_t kept(int64_t valid) {
  return valid >= per ? ~uint32_t{0} : ~uint32_t{0} >> (32 / per * (per - valid));
}

// A unit from its codes.
template <int per>
ULPGRAD_INLINE uint32_t joined(uint32_t x0, uint32_t x1, uint32_t x2, uint32_t x3) {
  if constexpr (per == 4) return (x0 & 0xFF) | (x1 & 0xFF) << 8 | (x2 & 0xFF) << 16 | x3 << 24;
  return per == 2 ? (x0 & 0xFFFF) | x1 << 16 : x0 & 0xFFFF;
}

// Both 16-bit values of a unit shifted right by 8, with their signs; and their low bytes.
ULPGRAD_INLINE uint32_t high_bytes(uint32_t unit) {
  return static_cast<uint32_t>(static_cast<int32_t>(unit) >> 24) << 16 |
         (static_cast<uint32_t>(static_cast<int32_t>(unit << 16) >> 24) & 0xFFFF);
}
ULPGRAD_INLINE uint32_t low_bytes(uint32_t unit) { return unit & 0x00FF00FF; }

#if __has_builtin(__builtin_shufflevector)
#define ULPGRAD_INTERLEAVES 1
typedef int8_t Line __attribute__((vector_size(16)));
typedef int16_t PairLine __attribute__((vector_size(16)));

// Four rows of 16 bytes as 16 units of four bytes.
ULPGRAD_INLINE void interleave(const Line (&x)[4], Line (&units)[4]) {
  const auto low = [](Line p, Line q) {
    return (PairLine)__builtin_shufflevector(p, q, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  };
  const auto high = [](Line p, Line q) {
    return (PairLine)__builtin_shufflevector(p, q, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  };
  const PairLine a[2] = {low(x[0], x[1]), high(x[0], x[1])}, b[2] = {low(x[2], x[3]), high(x[2], x[3])};
  for (int i = 0; i < 2; ++i) {
    units[2 * i] = (Line)__builtin_shufflevector(a[i], b[i], 0, 8, 1, 9, 2, 10, 3, 11);
    units[2 * i + 1] = (Line)__builtin_shufflevector(a[i], b[i], 4, 12, 5, 13, 6, 14, 7, 15);
  }
}

// The units of one step of k, 16 lanes at a time; returns the lanes that are done. Of the last 16 it may write some
// beyond the panel's width, where the next step comes.
template <typename T>
ULPGRAD_INLINE int64_t interleave_lanes(const Panel<T>& p, const T* const (&x)[4], uint32_t* __restrict out) {
  int64_t l = 0;
  for (; l < p.count && l + 16 <= p.readable; l += 16) {
    Line rows[4], units[4];
    for (int i = 0; i < 4; ++i) __builtin_memcpy(&rows[i], x[i] + l, sizeof(Line));
    interleave(rows, units);
    for (int64_t i = 0; 4 * i < std::min<int64_t>(16, p.width - l); ++i) {
      const uint32_t flips[4] = {p.flip, p.flip, p.flip, p.flip};
      Line flip;
      __builtin_memcpy(&flip, flips, sizeof flip);
      units[i] ^= flip;
      __builtin_memcpy(out + l + 4 * i, &units[i], sizeof(Line));
    }
  }
  return std::min(l, p.count);
}
#else
#define ULPGRAD_INTERLEAVES 0
#endif

// Lanes lie side by side in memory: a vector of lanes at a time.
template <int per, typename T>
static void pack_side_by_side(const Panel<T>& p, int64_t k, uint32_t* __restrict out) {
  for (int64_t at = 0; at < k; at += per) {
    const int64_t valid = k - at;
    const T* x[4];
    for (int i = 0; i < 4; ++i) x[i] = p.from + (at + (i < valid && i < per ? i : 0)) * p.k_stride;
    for (int64_t i = 0; i < per; ++i) __builtin_prefetch(p.from + std::min(at + kAhead + i, k - 1) * p.k_stride);
    int64_t done = 0;
#if ULPGRAD_INTERLEAVES
    if constexpr (per == 4 && sizeof(T) == 1) {
      if (valid >= 4) done = interleave_lanes(p, x, out);
    }
#endif
    const uint32_t keep = kept<per>(valid);
    const T* __restrict x0 = x[0], * __restrict x1 = x[1], * __restrict x2 = x[2], * __restrict x3 = x[3];
    for (int64_t l = done; l < p.count; ++l) {
      out[l] = (joined<per>(static_cast<uint32_t>(x0[l]), static_cast<uint32_t>(x1[l]), static_cast<uint32_t>(x2[l]),
                            static_cast<uint32_t>(x3[l])) ^
                p.flip) &
               keep;
    }
    for (int64_t l = p.count; l < p.width; ++l) out[l] = 0;
    if (p.halves) {
      for (int64_t l = 0; l < p.width; ++l) {
        const uint32_t unit = out[l];
        out[l] = high_bytes(unit), out[p.width + l] = low_bytes(unit);
      }
      out += p.width;
    }
    out += p.width;
  }
}

constexpr int64_t kPiece = 64;  // units of each lane that are turned at a time

// Units of one lane from `k` codes; those after them are zeros.
template <int per, typename T>
ULPGRAD_INLINE void gather_units(const T* __restrict from, int64_t k_stride, int64_t k, uint32_t flip,
                                 uint32_t* __restrict out) {
  const int64_t whole = k / per;
  for (int64_t u = 0; u < whole; ++u) {
    const T* x = from + u * per * k_stride;
    uint32_t codes[4] = {};
    for (int i = 0; i < per; ++i) codes[i] = static_cast<uint32_t>(x[i * k_stride]);
    out[u] = joined<per>(codes[0], codes[1], codes[2], codes[3]) ^ flip;
  }
  if (whole * per < k) {
    uint32_t codes[4] = {};
    for (int64_t i = whole * per; i < k; ++i) codes[i - whole * per] = static_cast<uint32_t>(from[i * k_stride]);
    out[whole] = (joined<per>(codes[0], codes[1], codes[2], codes[3]) ^ flip) & kept<per>(k - whole * per);
  }
}

// The same where the codes lie side by side, as they do in units.
template <int per, typename T>
ULPGRAD_INLINE void copy_units(const T* __restrict from, int64_t k, uint32_t flip, uint32_t* __restrict out) {
  if constexpr (per * sizeof(T) == sizeof(uint32_t)) {
    const int64_t whole = k / per;
    for (int64_t u = 0; u < whole; ++u) {
      uint32_t unit;
      __builtin_memcpy(&unit, from + u * per, sizeof unit);
      out[u] = unit ^ flip;
    }
    if (whole * per < k) gather_units<per>(from + whole * per, 1, k - whole * per, flip, out + whole);
  } else {
    gather_units<per>(from, 1, k, flip, out);
  }
}

// out[u * step + l] = lanes[l][u] for l < width. Eight lanes are written at a time, which may reach beyond the width:
// into the next step, which comes later.
static void turn(const uint32_t (*lanes)[kPiece], int64_t width, int64_t units, int64_t step, uint32_t* out) {
  int64_t u = 0;
#if ULPGRAD_ISA_LEVEL >= 1
  for (; u + 8 <= units; u += 8) {
    for (int64_t l = (width - 1) / 8 * 8; l >= 0; l -= 8) {
      __m256 r[8], t[8];
      for (int i = 0; i < 8; ++i) {
        r[i] = _mm256_castsi256_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(&lanes[l + i][u])));
      }
      for (int i = 0; i < 4; ++i) {
        t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
      }
      for (int h = 0; h < 2; ++h) {
        r[4 * h + 0] = _mm256_shuffle_ps(t[4 * h + 0], t[4 * h + 2], 0x44);
        r[4 * h + 1] = _mm256_shuffle_ps(t[4 * h + 0], t[4 * h + 2], 0xEE);
        r[4 * h + 2] = _mm256_shuffle_ps(t[4 * h + 1], t[4 * h + 3], 0x44);
        r[4 * h + 3] = _mm256_shuffle_ps(t[4 * h + 1], t[4 * h + 3], 0xEE);
      }
      for (int i = 0; i < 8; ++i) {
        const __m256 row =
            i < 4 ? _mm256_permute2f128_ps(r[i], r[i + 4], 0x20) : _mm256_permute2f128_ps(r[i - 4], r[i], 0x31);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + (u + i) * step + l), _mm256_castps_si256(row));
      }
    }
  }
#endif
  for (; u < units; ++u)
    for (int64_t l = 0; l < width; ++l) out[u * step + l] = lanes[l][u];
}

constexpr int64_t kMostLanes = 4 * kLanes<int32_t> < 48 ? 48 : 4 * kLanes<int32_t>;  // of a panel

// Lanes lie apart: their units are collected, and turned into place.
template <int per, typename T>
static void pack_apart(const Panel<T>& p, int64_t k, uint32_t* out) {
  const int64_t step = p.halves ? 2 * p.width : p.width;
  alignas(64) uint32_t lanes[kMostLanes][kPiece];
  const int64_t turned = std::min(kMostLanes, (p.width + 7) / 8 * 8);
  for (int64_t l = p.count; l < turned; ++l)
    for (int64_t u = 0; u < kPiece; ++u) lanes[l][u] = 0;
  for (int64_t at = 0; at < k; at += per * kPiece) {
    const int64_t codes = k - at < per * kPiece ? k - at : per * kPiece, units = (codes + per - 1) / per;
    for (int64_t l = 0; l < p.count; ++l) {
      const T* from = p.from + l * p.lane_stride + at * p.k_stride;
      if (p.k_stride == 1) {
        copy_units<per>(from, codes, p.flip, lanes[l]);
      } else {
        gather_units<per>(from, p.k_stride, codes, p.flip, lanes[l]);
      }
    }
    if (p.halves) {
      alignas(64) uint32_t part[kMostLanes][kPiece];
      for (int64_t l = 0; l < turned; ++l)
        for (int64_t u = 0; u < units; ++u) part[l][u] = high_bytes(lanes[l][u]);
      turn(part, p.width, units, step, out);
      for (int64_t l = 0; l < turned; ++l)
        for (int64_t u = 0; u < units; ++u) part[l][u] = low_bytes(lanes[l][u]);
      turn(part, p.width, units, step, out + p.width);
    } else {
      turn(lanes, p.width, units, step, out);
    }
    out += units * step;
  }
}

template <int per, typename T>
static void pack_units(const Panel<T>& p, int64_t k, uint32_t* out) {
  if (p.lane_stride == 1 && p.count > 1) return pack_side_by_side<per>(p, k, out);
  pack_apart<per>(p, k, out);
}

}  // namespace ulpgrad::ULPGRAD_ISA
