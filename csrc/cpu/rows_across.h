// Short rows: a vector of each, joined to one value a row.
#pragma once

#include <type_traits>

#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

// One step of across_rows: segments of 2 * part lanes, each of one row, become segments of `part`.
template <typename T, typename Op, int part>
ULPGRAD_INLINE void halve_rows(Vec<T>* rows) {
  typedef decltype(Vec<T>{} < Vec<T>{}) Places;
  constexpr int lanes = kLanes<T>;
  Places low;
#pragma GCC unroll 64
  for (int l = 0; l < lanes; ++l) low[l] = l / part * 2 * part + l % part;
  const Places high = low + part;
#pragma GCC unroll 32
  for (int i = 0; i < part; ++i)
    rows[i] = Op::join(__builtin_shuffle(rows[2 * i], rows[2 * i + 1], low),
                       __builtin_shuffle(rows[2 * i], rows[2 * i + 1], high));
  if constexpr (part > 1) halve_rows<T, Op, part / 2>(rows);
}

// Lane r of the result is what the lanes of rows[r] join to, upper half to lower half until one is left: as many rows
// as a vector has lanes, each of which costs two shuffles and a join. rows are overwritten.
template <typename T, typename Op>
ULPGRAD_INLINE Vec<T> across_rows(Vec<T>* rows) {
  halve_rows<T, Op, kLanes<T> / 2>(rows);
  return rows[0];
}

// The place of a value in each lane's part of a row, and the first of several.
template <typename T>
using Places = decltype(Vec<T>{} < Vec<T>{});

struct First {
  template <typename V>
  ULPGRAD_INLINE V join(V a, V b) {
    return b < a ? b : a;
  }
};

// First places in as many short rows as a vector has lanes. lanes_of(k) gives row k joined to one vector, and
// place(k, best) where each lane of it first holds its best value, or more than any place.
template <typename T, typename Op, typename LanesOf, typename Place>
ULPGRAD_INLINE void arg_across(int64_t* out, const LanesOf& lanes_of, const Place& place) {
  typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Index;
  constexpr int lanes = kLanes<T>;
  Vec<T> rows[lanes];
  for (int k = 0; k < lanes; ++k) rows[k] = lanes_of(k);
  alignas(kVectorBytes) T best[lanes];
  store(best, across_rows<T, Op>(rows));
  Vec<Index> where[lanes];
  for (int k = 0; k < lanes; ++k) where[k] = (Vec<Index>)place(k, best[k]);
  const Vec<Index> first = across_rows<Index, First>(where);
#pragma GCC unroll 16
  for (int k = 0; k < lanes; ++k) out[k] = first[k];
}

}  // namespace ulpgrad::ULPGRAD_ISA
