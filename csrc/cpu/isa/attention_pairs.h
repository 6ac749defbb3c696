// Pairs of bfloat16, which AVX-512 BF16 multiplies and adds up in float32, two products in an instruction.
//
// The instruction takes subnormal operands and results for zero: whoever calls sees to it that values are not that
// small.
#pragma once

#include <immintrin.h>

#include "attention_blocks.h"

namespace ulpgrad::ULPGRAD_ISA {

struct Pairs {
  using Real = float;
  using Item = uint32_t;
  static constexpr int64_t count = 2;
  static constexpr bool exact = false;  // whether weights keep all their digits

  static ULPGRAD_FINISH Vec<float> multiply_add(Item a, Vec<Item> b, Vec<float> sum) {
    return (Vec<float>)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(static_cast<int>(a)), (__m512bh)b);
  }

  // Rows of pairs, each of two neighbours in a row of the tile.
  template <int rows, int vectors>
  static ULPGRAD_FINISH void put_along(const Vec<float> (&tile)[rows][vectors], Item* to, int64_t row) {
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i * row + j * 8),
                            (__m256i)_mm512_cvtneps_pbh((__m512)tile[i][j]));
    }
  }

  // Rows of pairs, each of two rows of the tile; the last is paired with zeros if it is alone.
  template <int rows, int vectors>
  static ULPGRAD_FINISH void put(const Vec<float> (&tile)[rows][vectors], Item* to, int64_t row) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i += 2) {
#pragma GCC unroll 4
      for (int j = 0; j < vectors; ++j) {
        const __m512 odd = i + 1 < rows ? (__m512)tile[i + 1 < rows ? i + 1 : 0][j] : _mm512_setzero_ps();
        const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(odd, (__m512)tile[i][j]);
        _mm512_storeu_si512(to + i / 2 * row + j * 16, _mm512_permutexvar_epi16(order, both));
      }
    }
  }
};

template <>
struct Blocks<Bfloat16, Pairs> {
  using Real = float;
  using Item = uint32_t;

  static constexpr int64_t items(int64_t size) { return (size + 1) / 2; }

  static Items along(const AttentionRows& rows, int64_t first, int64_t count, int64_t size, Item* memory) {
    if (size % 2 == 0) return {row_of<Bfloat16>(rows, first), rows.row * 2};
    const int64_t width = items(size);
    for (int64_t i = 0; i < count; ++i) {
      memory[(i + 1) * width - 1] = 0;
      memcpy(memory + i * width, row_of<Bfloat16>(rows, first + i), size * 2);
    }
    return {memory, width * 4};
  }

  static ULPGRAD_FINISH void interleave(const uint16_t* even, const uint16_t* odd, Item* to) {
    const __m512i order = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6,
                                           37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    const __m512i x = _mm512_loadu_si512(even), y = _mm512_loadu_si512(odd), next = _mm512_set1_epi16(16);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(x, order, y));
    _mm512_storeu_si512(to + 16, _mm512_permutex2var_epi16(x, _mm512_add_epi16(order, next), y));
  }

  static bool lies_across(const AttentionRows&, int64_t, int64_t) { return false; }

  // Rows of pairs, each of the values of two rows.
  static ULPGRAD_TARGET Panel<Item> across(const AttentionRows& rows, int64_t first, int64_t count, int64_t size,
                                           int64_t width, Item* memory) {
    for (int64_t i = 0; i < count; i += 2) {
      const uint16_t* const even = &row_of<Bfloat16>(rows, first + i)->code;
      const uint16_t* const odd = i + 1 < count ? &row_of<Bfloat16>(rows, first + i + 1)->code : nullptr;
      Item* const to = memory + i / 2 * width;
      if (odd) {
        int64_t p = 0;
        for (; p + 32 <= size; p += 32) interleave(even + p, odd + p, to + p);
        for (; p < size; ++p) to[p] = even[p] | uint32_t(odd[p]) << 16;
      } else {
        for (int64_t p = 0; p < size; ++p) to[p] = even[p];
      }
      if (width > size) memset(to + size, 0, (width - size) * sizeof(Item));
    }
    return {memory, width};
  }

  static void transpose(const AttentionRows& rows, int64_t first, int64_t count, int64_t size, Item* to,
                        int64_t columns, Item* memory) {
    const Items from = along(rows, first, count, size, memory);
    Blocks<float, Numbers<Item>>::transpose_items(from, count, items(size), to, columns);
  }
};

}  // namespace ulpgrad::ULPGRAD_ISA
