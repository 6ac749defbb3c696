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

template <typename T, typename Place>
static void max(const PoolGeometry& p, const T* x, T* y, int64_t* indices) {
  max_of<T, Place, kLanes<T>>(p, x, y, indices);
}

}  // namespace ulpgrad::ULPGRAD_ISA
