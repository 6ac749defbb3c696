// Blocks of operands as the products want them, from rows of any format, and the memory for them.
#pragma once

#include <cstring>
#include <type_traits>

#include "attention.h"
#include "attention_multiply.h"
#include "cast.h"
#include "squares_simd.h"

namespace ulpgrad::ULPGRAD_ISA {

// What a value is stored as.
struct Bfloat16 {
  uint16_t code;
};
struct Float16 {
  uint16_t code;
};

ULPGRAD_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
ULPGRAD_INLINE int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

template <class Stored, typename T>
ULPGRAD_INLINE void widen(const Stored* from, T* to, int64_t n) {
  if constexpr (std::is_same_v<Stored, Bfloat16>) {
    cast_table.b_s(from, to, n);
  } else if constexpr (std::is_same_v<Stored, Float16>) {
    cast_table.h_s(from, to, n);
  } else {
    memcpy(to, from, n * sizeof(T));
  }
}

template <class Stored, typename T>
ULPGRAD_INLINE void narrow(const T* from, Stored* to, int64_t n) {
  if constexpr (std::is_same_v<Stored, Bfloat16>) {
    cast_table.s_b(from, to, n);
  } else if constexpr (std::is_same_v<Stored, Float16>) {
    cast_table.s_h(from, to, n);
  } else {
    memcpy(to, from, n * sizeof(T));
  }
}

template <class Stored>
ULPGRAD_INLINE const Stored* row_of(const AttentionRows& rows, int64_t i) {
  return static_cast<const Stored*>(rows.data) + i * rows.row;
}

// Hands out pieces of a block of memory; without one it only counts.
struct Pieces {
  char* memory;
  int64_t used = 0;
  template <typename T>
  T* take(int64_t n) {
    T* const piece = memory ? reinterpret_cast<T*>(memory + used) : nullptr;
    used += round_up(n * static_cast<int64_t>(sizeof(T)), 64);
    return piece;
  }
};

// Operands of a product whose rows its tiles walk along: numbers, or pairs of bfloat16, one behind the other.
struct Items {
  const void* data;
  int64_t row;  // in bytes
  template <typename Item>
  const Item* row_of(int64_t i) const {
    return reinterpret_cast<const Item*>(static_cast<const char*>(data) + i * row);
  }
};

// Operands of a product whose rows are whole vectors of items.
template <typename Item>
struct Panel {
  const Item* data;
  int64_t row;
};

constexpr int64_t kFarRow = 1024;  // bytes: rows that lie this far apart compete for the same few places in the cache

// How blocks of rows become operands, for rows of `Stored` and a product's `Unit`.
template <class Stored, class Unit>
struct Blocks {
  using Real = typename Unit::Real;
  using Item = typename Unit::Item;
  static constexpr bool kAsIs = std::is_same_v<Stored, Real>;

  static constexpr int64_t items(int64_t size) { return size; }

  static Items along(const AttentionRows& rows, int64_t first, int64_t count, int64_t size, Item* memory) {
    if constexpr (kAsIs) return {row_of<Stored>(rows, first), rows.row * static_cast<int64_t>(sizeof(Item))};
    for (int64_t i = 0; i < count; ++i) widen(row_of<Stored>(rows, first + i), memory + i * size, size);
    return {memory, size * static_cast<int64_t>(sizeof(Item))};
  }

  // Whether rows are whole vectors that need no copy.
  static bool lies_across(const AttentionRows& rows, int64_t size, int64_t width) {
    return kAsIs && width == size && rows.row * static_cast<int64_t>(sizeof(Item)) < kFarRow;
  }

  // Rows with zeros behind them up to `width`.
  static Panel<Item> across(const AttentionRows& rows, int64_t first, int64_t count, int64_t size, int64_t width,
                            Item* memory) {
    if constexpr (kAsIs) {
      if (lies_across(rows, size, width)) return {row_of<Stored>(rows, first), rows.row};
    }
    for (int64_t i = 0; i < count; ++i) {
      widen(row_of<Stored>(rows, first + i), memory + i * width, size);
      if (width > size) memset(memory + i * width + size, 0, (width - size) * sizeof(Item));
    }
    return {memory, width};
  }

  // to[p * columns + i] = item p of row i; zeros up to `columns`.
  static void transpose(const AttentionRows& rows, int64_t first, int64_t count, int64_t size, Item* to,
                        int64_t columns, Item* memory) {
    const Items from = along(rows, first, count, size, memory);
    transpose_items(from, count, size, to, columns);
  }

  static void transpose_items(const Items& from, int64_t count, int64_t size, Item* to, int64_t columns) {
    constexpr int lanes = kLanes<Item>;
    for (int64_t i = 0; i < columns; i += lanes) {
      for (int64_t p = 0; p < size; p += lanes) {
        const int64_t rows = least(lanes, count - i), wide = least(lanes, size - p);
        Vec<Item> square[lanes];
#pragma GCC unroll 16
        for (int r = 0; r < lanes; ++r) {
          square[r] = Vec<Item>{};
          if (r < rows) square[r] = load_some(from.template row_of<Item>(i + r) + p, wide);
        }
        ulpgrad::ULPGRAD_ISA::transpose<Item>(square);
#pragma GCC unroll 16
        for (int c = 0; c < lanes; ++c) {
          if (c < wide) store(to + (p + c) * columns + i, square[c]);
        }
      }
    }
  }
};

}  // namespace ulpgrad::ULPGRAD_ISA
