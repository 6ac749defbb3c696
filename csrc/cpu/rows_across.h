// Short rows: a vector of each, joined to one value a row.
#pragma once

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

}  // namespace ulpgrad::ULPGRAD_ISA
