// The largest value of each window, and where it is: values and places of a vector of windows stay in registers for all
// taps.
#pragma once

#include "pool_windows.h"

namespace ulpgrad::ULPGRAD_ISA {

// Windows [column, column + lanes) of a row, all of whose taps are on the image along the row.
template <int lanes, int step, typename Place, typename T>
ULPGRAD_INLINE void max_windows(const PoolGeometry& p, const T* x, int64_t top, const Taps& taps, int64_t column, T* y,
                                int64_t* indices) {
  using Values = typename Bytes<T, lanes * sizeof(T)>::type;
  using Places = typename Bytes<Place, lanes * sizeof(Place)>::type;
  using Wide = typename Bytes<int64_t, lanes * sizeof(int64_t)>::type;
  const int64_t stride = step ? step : p.stride[1], left = column * stride - p.padding[1];
  Places lane;
  for (int i = 0; i < lanes; ++i) lane[i] = static_cast<Place>(i * stride);
  Values best{};
  Places place{};
  for (int64_t i = taps.begin; i < taps.end; ++i) {
    for (int64_t j = 0; j < p.kernel[1]; ++j) {
      const int64_t at = (top + i * p.dilation[0]) * p.width + left + j * p.dilation[1];
      const Values value = every<Values, lanes, step>(x + at, stride);
      const Places here = lane + static_cast<Place>(at);
      if (i == taps.begin && j == 0) {
        best = value, place = here;
      } else {
        const Places take = (value > best) | ((value != value) & (best == best));
        best = take ? value : best;
        place = take ? here : place;
      }
    }
  }
  const Wide wide = __builtin_convertvector(place, Wide);
  std::memcpy(y + column, &best, sizeof best);
  std::memcpy(indices + column, &wide, sizeof wide);
}

// One window, wherever it lies.
template <typename T>
static void max_window(const PoolGeometry& p, const T* x, int64_t top, const Taps& taps, int64_t column, T* y,
                       int64_t* indices) {
  const int64_t left = column * p.stride[1] - p.padding[1];
  T best = 0;
  int64_t place = -1;
  for (int64_t i = taps.begin; i < taps.end; ++i) {
    for (int64_t j = first_inside(left, p.dilation[1]); j < end_inside(left, p.dilation[1], p.kernel[1], p.width);
         ++j) {
      const int64_t at = (top + i * p.dilation[0]) * p.width + left + j * p.dilation[1];
      const T value = x[at];
      if (place < 0 || value > best || (value != value && best == best)) best = value, place = at;
    }
  }
  y[column] = best;
  indices[column] = place;
}

template <int lanes, int step, typename Place, typename T>
static void max_rows(const PoolGeometry& p, const T* x, T* y, int64_t* indices) {
  for (int64_t row = 0; row < p.rows; ++row, y += p.columns, indices += p.columns) {
    const int64_t top = row * p.stride[0] - p.padding[0];
    const Taps taps{first_inside(top, p.dilation[0]), end_inside(top, p.dilation[0], p.kernel[0], p.height)};
    const auto single = [&](int64_t column) { max_window(p, x, top, taps, column, y, indices); };
    const auto vectors = [&](int64_t column) {
      if (taps.begin < taps.end) return max_windows<lanes, step, Place>(p, x, top, taps, column, y, indices);
      for (int64_t i = column; i < column + lanes; ++i) single(i);
    };
    for_windows<lanes, step>(p, vectors, single);
  }
}

// Vectors as long as a row of windows allows.
template <typename T, typename Place, int lanes>
static void max_of(const PoolGeometry& p, const T* x, T* y, int64_t* indices) {
  if constexpr (lanes > 2) {
    if (p.columns < lanes) return max_of<T, Place, lanes / 2>(p, x, y, indices);
  }
  const auto run = p.stride[1] == 1   ? max_rows<lanes, 1, Place, T>
                   : p.stride[1] == 2 ? max_rows<lanes, 2, Place, T>
                                      : max_rows<lanes, 0, Place, T>;
  run(p, x, y, indices);
}

// The largest of n neighbours and its place: a vector of them side by side, then the lanes, of which the first that has
// it counts. What is not a number is larger than all.
template <typename Place, typename T>
static void max_run(const T* x, int64_t n, T* y, int64_t* index) {
  constexpr int lanes = kLanes<T>;
  using Values = typename Bytes<T, lanes * sizeof(T)>::type;
  using Places = typename Bytes<Place, lanes * sizeof(Place)>::type;
  T largest = x[0];
  int64_t at = 0;
  const auto compare = [&](T value, int64_t place) {
    const bool more = value != value ? largest == largest : value > largest;
    const bool same = value != value ? largest != largest : value == largest;
    if (more || (same && place < at)) largest = value, at = place;
  };
  int64_t i = 0;
  if (n >= lanes) {
    Values best;
    Places place, here;
    std::memcpy(&best, x, sizeof best);
    for (int lane = 0; lane < lanes; ++lane) here[lane] = static_cast<Place>(lane);
    place = here;
    for (i = lanes; i + lanes <= n; i += lanes) {
      Values value;
      std::memcpy(&value, x + i, sizeof value);
      here += static_cast<Place>(lanes) - Places{};
      const Places take = (value > best) | ((value != value) & (best == best));
      best = take ? value : best;
      place = take ? here : place;
    }
    for (int lane = 0; lane < lanes; ++lane) compare(best[lane], place[lane]);
  }
  for (; i < n; ++i) compare(x[i], i);
  *y = largest, *index = at;
}

template <typename T, typename Place>
static void max(const PoolGeometry& p, const T* x, T* y, int64_t* indices) {
  if (is_whole_rows(p) && p.dilation[0] == 1 && p.dilation[1] == 1) {
    for (int64_t row = 0; row < p.rows; ++row) {
      const int64_t first = row * p.stride[0] * p.width;
      max_run<Place>(x + first, p.kernel[0] * p.width, y + row, indices + row);
      indices[row] += first;
    }
    return;
  }
  max_of<T, Place, kLanes<T>>(p, x, y, indices);
}

}  // namespace ulpgrad::ULPGRAD_ISA
