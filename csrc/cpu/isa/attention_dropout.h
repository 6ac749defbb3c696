// Dropout of weights: a bit for each query and key says whether the weight is kept. It hangs on the weight's index in
// the whole of [..., queries, keys] alone (kernels/random/philox.py), never on blocks, so that backward finds the bits
// of forward again instead of keeping them.
#pragma once

#include "attention_blocks.h"
#include "philox.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int64_t kBitsRow = kAttentionKeys / 32;  // words of the bits of a query: as many as a block has keys
static_assert(kAttentionKeys % 32 == 0 && kAttentionKeys >= kGradientKeys);

// The bits of `count` weights from index `first` on; anything behind them, up to kBitsRow words.
static void kept_bits(const AttentionDropout& dropout, const uint64_t keys[20], uint64_t first, int64_t count,
                      uint32_t* bits) {
  constexpr int lanes = kLanes<uint64_t>, step = lanes / 2;  // a chunk of 4 lanes bits, in bytes
  alignas(8) uint8_t raw[4 * kBitsRow + 16] = {};
  Word lane, one;
#pragma GCC unroll 8
  for (int l = 0; l < lanes; ++l) lane[l] = static_cast<uint64_t>(l), one[l] = uint64_t{1} << 4 * l;
  const Vec<int64_t> limit = broadcast(static_cast<int64_t>(dropout.limit));
  const int shift = static_cast<int>(first % 4);
  uint64_t block = first / 4;
  for (int64_t at = 0; 8 * at < shift + count; at += step, block += lanes) {
    const Word low = lane + (dropout.counter_low + block);
    const Word carry = (Word)(low < broadcast(dropout.counter_low));  // all ones, which is -1
    Word words[4], kept{};
    philox(keys, low, dropout.counter_high - carry, words);
#pragma GCC unroll 4
    for (int w = 0; w < 4; ++w) kept |= (Word)((Vec<int64_t>)(words[w] & 0xFFFFFFFF) >= limit) & one << w;
    const uint64_t all = sum<uint64_t>(kept);  // no two lanes have a bit in common
    memcpy(raw + at, &all, step);
  }
  for (int64_t i = 0; i < kBitsRow; ++i) {
    uint64_t two;
    memcpy(&two, raw + 4 * i, sizeof two);
    bits[i] = static_cast<uint32_t>(two >> shift);
  }
}

// The same for a block of queries and keys, a row of bits for each query.
static void kept_rows(const AttentionHead& head, int64_t query, int64_t queries, int64_t key, int64_t keys,
                      uint32_t* bits) {
  uint64_t rounds[20];
  philox_keys(head.dropout->key, rounds);
  for (int64_t i = 0; i < queries; ++i) {
    const uint64_t first = head.first_weight + static_cast<uint64_t>((query + i) * head.row_of_weights + key);
    kept_bits(*head.dropout, rounds, first, keys, bits + i * kBitsRow);
  }
}

// Rows of bits for each key, of up to 64 queries, from rows for each query.
static void turn_bits(const uint32_t* bits, int64_t queries, int64_t keys, uint32_t* turned) {
  static_assert(kAttentionQueries == 64);
  for (int64_t key = 0; key < keys; key += 32) {
    for (int64_t query = 0; query < 64; query += 32) {
      uint32_t square[32];
      for (int64_t r = 0; r < 32; ++r) square[r] = query + r < queries ? bits[(query + r) * kBitsRow + key / 32] : 0;
      // Halves of the square change places, then halves of its quarters, and so on.
      uint32_t mask = 0xFFFF;
      for (int half = 16; half > 0; half /= 2, mask ^= mask << half) {
        for (int from = 0; from < 32; from += 2 * half) {
          for (int r = from; r < from + half; ++r) {
            const uint32_t differ = (square[r] >> half ^ square[r + half]) & mask;
            square[r] ^= differ << half;
            square[r + half] ^= differ;
          }
        }
      }
      for (int64_t c = 0; c < 32; ++c) turned[(key + c) * 2 + query / 32] = square[c];
    }
  }
}

// x where its lane's bit is set, 0 elsewhere.
template <typename T>
ULPGRAD_INLINE Vec<T> kept(Vec<T> x, uint32_t bits) {
#if ULPGRAD_ISA_LEVEL == 2
  if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_maskz_mov_epi32(static_cast<__mmask16>(bits), (__m512i)x);
  if constexpr (sizeof(T) == 8) return (Vec<T>)_mm512_maskz_mov_epi64(static_cast<__mmask8>(bits), (__m512i)x);
#else
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  Vec<Bits> each;
#pragma GCC unroll 16
  for (int l = 0; l < kLanes<T>; ++l) each[l] = Bits{1} << l;
  const Vec<Bits> mine = broadcast(static_cast<Bits>(bits)) & each;
  return (Vec<T>)((Vec<Bits>)x & (Vec<Bits>)(mine == each));
#endif
}

// The bits of the lanes from `column` on.
ULPGRAD_INLINE uint32_t bits_at(const uint32_t* row, int64_t column) { return row[column / 32] >> column % 32; }

// Zeros where weights, as items of rows, are dropped. bits: `bits_row` words for each row.
template <class Unit>
static ULPGRAD_TARGET void drop(typename Unit::Item* items, int64_t rows, int64_t columns, const uint32_t* bits,
                                int64_t bits_row) {
  using Item = typename Unit::Item;
  for (int64_t i = 0; i < rows; i += Unit::count) {
    Item* const to = items + i / Unit::count * columns;
    const uint32_t* const row = bits + i * bits_row;
    for (int64_t j = 0; j < columns; j += kLanes<Item>) {
      if constexpr (Unit::count == 1) {
        store(to + j, kept<Item>(load(to + j), bits_at(row, j)));
      } else {  // pairs: of this row, and of the next
        const Vec<Item> low = kept<Item>(broadcast(Item{0xFFFF}), bits_at(row, j));
        const Vec<Item> high = kept<Item>(broadcast(Item{0xFFFF0000}), bits_at(row + bits_row, j));
        store(to + j, load(to + j) & (low | high));
      }
    }
  }
}

}  // namespace ulpgrad::ULPGRAD_ISA
