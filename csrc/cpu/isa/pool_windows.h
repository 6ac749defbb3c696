// Rows of windows: vectors of neighbouring outputs where all their taps are on the image, single outputs at its edges.
// Every second value of a row is picked out of two loads.
#pragma once

#include <utility>

#include "pool.h"
#include "simd.h"

namespace ulpgrad::ULPGRAD_ISA {

// The taps [begin, end) whose image row is inside, for a window that starts at `start`.
ULPGRAD_INLINE int64_t first_inside(int64_t start, int64_t step) { return start < 0 ? (-start + step - 1) / step : 0; }
ULPGRAD_INLINE int64_t end_inside(int64_t start, int64_t step, int64_t count, int64_t size) {
  const int64_t end = start < size ? (size - start + step - 1) / step : 0;
  return end < count ? end : count;
}

// Whether windows are runs of whole rows.
ULPGRAD_INLINE bool is_whole_rows(const PoolGeometry& p) {
  return p.columns == 1 && p.kernel[1] == p.width && !p.padding[0] && !p.padding[1];
}

// from[0], from[2], ...: nothing beyond the last one is read.
template <typename V, typename T, size_t... lane>
ULPGRAD_INLINE V every_second(const T* from, std::index_sequence<lane...>) {
  constexpr size_t lanes = sizeof...(lane);
  V a, b;
  std::memcpy(&a, from, sizeof(V));
  std::memcpy(&b, from + lanes - 1, sizeof(V));
  return __builtin_shufflevector(a, b, (lane < lanes / 2 ? 2 * lane : 2 * lane + 1)...);
}

// from[0], from[stride], ...; step: the stride where it is known to the compiler, else 0.
template <typename V, int lanes, int step, typename T>
ULPGRAD_INLINE V every(const T* from, int64_t stride) {
  V v;
  if constexpr (step == 1) {
    std::memcpy(&v, from, sizeof(V));
  } else if constexpr (step == 2) {
    v = every_second<V>(from, std::make_index_sequence<lanes>());
  } else {
    for (int lane = 0; lane < lanes; ++lane) v[lane] = from[lane * stride];
  }
  return v;
}

// The rows of taps of one row of windows that lie on the image.
struct Taps {
  int64_t begin, end;
};

// Calls vectors(column) for windows [column, column + lanes) of a row that lie on the image with all their columns,
// some perhaps twice, and single(column) for the others; for all of them where a row has fewer. step: as in every().
template <int lanes, int step, typename Vectors, typename Single>
ULPGRAD_INLINE void for_windows(const PoolGeometry& p, const Vectors& vectors, const Single& single) {
  const int64_t stride = step ? step : p.stride[1], reach = (p.kernel[1] - 1) * p.dilation[1];
  const int64_t first = (p.padding[1] + stride - 1) / stride;
  const int64_t room = p.width - 1 - reach + p.padding[1];
  const int64_t fitting = room < 0 ? 0 : room / stride + 1, last = fitting < p.columns ? fitting : p.columns;
  int64_t column = 0;
  if (last - first >= lanes) {
    for (; column < first; ++column) single(column);
    for (; column + lanes <= last; column += lanes) vectors(column);
    if (column < last) vectors(last - lanes);
    column = last;
  }
  for (; column < p.columns; ++column) single(column);
}

}  // namespace ulpgrad::ULPGRAD_ISA
