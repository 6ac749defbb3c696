// Masks, applied to scores in units of log2.
#pragma once

#include "attention_blocks.h"

namespace ulpgrad::ULPGRAD_ISA {

// Scores of a block of queries and keys: that of the query i and the key j lies at i * row + j * column.
template <typename T>
struct Scores {
  T* data;
  int64_t queries, keys, row, column;
};

// Masks that differ from key to key only: each covers a column of scores.
template <typename T>
static void mask_keys(const Scores<T>& s, const void* mask, bool is_bool, int64_t step) {
  constexpr T hidden = -__builtin_inff(), log2e = T(1.4426950408889634);
  for (int64_t j = 0; j < s.keys; ++j) {
    T* const to = s.data + j * s.column;
    if (is_bool) {
      if (static_cast<const uint8_t*>(mask)[j * step]) continue;
      for (int64_t i = 0; i < s.queries; ++i) to[i * s.row] = hidden;
    } else {
      const T added = static_cast<const T*>(mask)[j * step] * log2e;
      for (int64_t i = 0; i < s.queries; ++i) to[i * s.row] += added;
    }
  }
}

#if ULPGRAD_ISA_LEVEL == 2

// A bool mask on rows of 16 queries: 16 bits for the keys of each query, of which the bits of one key are a lane mask.
ULPGRAD_INLINE void mask_lanes(const Scores<float>& s, const uint8_t* allowed, int64_t row) {
  const __m512 hidden = _mm512_set1_ps(-__builtin_inff());
  for (int64_t i = 0; i < s.queries; i += 16) {
    for (int64_t j = 0; j < s.keys; j += 16) {
      const int64_t queries = least(16, s.queries - i), keys = least(16, s.keys - j);
      const __mmask16 whole = static_cast<__mmask16>((1u << keys) - 1);
      alignas(32) uint16_t seen[16] = {};
      for (int64_t r = 0; r < queries; ++r) {
        const __m128i bytes = _mm_maskz_loadu_epi8(whole, allowed + (i + r) * row + j);
        seen[r] = _mm_test_epi8_mask(bytes, bytes);
      }
      const __m256i rows = _mm256_load_si256(reinterpret_cast<const __m256i*>(seen));
      for (int64_t key = 0; key < keys; ++key) {
        const __mmask16 lanes = _mm256_testn_epi16_mask(rows, _mm256_set1_epi16(static_cast<short>(1 << key)));
        _mm512_mask_storeu_ps(s.data + (j + key) * s.column + i, lanes & static_cast<__mmask16>((1u << queries) - 1),
                              hidden);
      }
    }
  }
}

#endif

// Apply the mask of the queries from `query` on and the keys from `key` on, and hide the keys behind their query.
template <typename T>
static void apply_mask(const AttentionHead& head, int64_t query, int64_t key, const Scores<T>& s) {
  constexpr T hidden = -__builtin_inff(), log2e = T(1.4426950408889634);
  const AttentionMask& mask = head.mask;
  const int64_t start = query * mask.row + key * mask.column;
  const uint8_t* const allowed = static_cast<const uint8_t*>(mask.data) + start;
  const T* const added = static_cast<const T*>(mask.data) + start;
  [[maybe_unused]] bool done = !mask.data;
  if (mask.data && mask.row == 0) {
    mask_keys(s, mask.is_bool ? static_cast<const void*>(allowed) : added, mask.is_bool, mask.column);
    done = true;
  }
#if ULPGRAD_ISA_LEVEL == 2
  if constexpr (std::is_same_v<T, float>) {
    if (!done && mask.is_bool && mask.column == 1 && s.row == 1) {
      mask_lanes(s, allowed, mask.row);
      done = true;
    }
  }
#endif
  for (int64_t i = 0; !done && i < s.queries; ++i) {
    for (int64_t j = 0; j < s.keys; ++j) {
      T& score = s.data[i * s.row + j * s.column];
      if (mask.is_bool) {
        score = allowed[i * mask.row + j * mask.column] ? score : hidden;
      } else {
        score += added[i * mask.row + j * mask.column] * log2e;
      }
    }
  }
  if (head.is_causal) {
    for (int64_t j = 0; j < s.keys; ++j) {
      const int64_t before = least(key + j - query - head.place, s.queries);  // queries that do not see this key
      for (int64_t i = 0; i < before; ++i) s.data[i * s.row + j * s.column] = hidden;
    }
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
