// A radix sort of keys with their positions: one integer where both fit, else a pair.
#pragma once

#include <algorithm>

#include "order.h"

namespace ulpgrad {

constexpr int kDigit = 8;  // bits: more would write to more places at a time than there are pages at hand

// The key above the position; `place` bits of it.
template <typename Bits>
struct Packed {
  Bits bits;
  uint64_t key(int place) const { return uint64_t{bits} >> place; }
  int64_t position(int place) const { return static_cast<int64_t>(bits & ((uint64_t{1} << place) - 1)); }
};

struct Placed {
  uint64_t bits;
  int64_t at;
  uint64_t key(int) const { return bits; }
  int64_t position(int) const { return at; }
};

inline int width(uint64_t value) {
  int bits = 0;
  for (; value; value >>= 1) ++bits;
  return bits;
}

// Sorts `items` by bits [low, high), stably, with `spare` of the same size; true if the result is in `spare`.
template <typename Item>
bool radix_sort(Item* items, Item* spare, int64_t n, int low, int high) {
  bool moved = false;
  for (int shift = low; shift < high; shift += kDigit) {
    int64_t places[1 << kDigit] = {};
    const uint64_t mask = (uint64_t{1} << std::min(kDigit, high - shift)) - 1;
    for (int64_t i = 0; i < n; ++i) ++places[items[i].bits >> shift & mask];
    if (n && places[items[0].bits >> shift & mask] == n) continue;  // all have the same digit
    int64_t total = 0;
    for (int64_t& place : places) {
      const int64_t count = place;
      place = total;
      total += count;
    }
    for (int64_t i = 0; i < n; ++i) spare[places[items[i].bits >> shift & mask]++] = items[i];
    std::swap(items, spare);
    moved = !moved;
  }
  return moved;
}

}  // namespace ulpgrad
