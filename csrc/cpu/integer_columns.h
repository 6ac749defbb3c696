// What the taps of a filter meet in an image, written out: a row for each tap, a column for each pixel of the result.
#pragma once

#include <algorithm>
#include <cstring>

#include "integer_conv.h"

namespace ulpgrad {

// Rows of images are short, often too short for a call of memcpy to be worth it.
template <typename T>
void copy_row(T* to, const T* from, int64_t count) {
  constexpr int64_t some = 8 / sizeof(T);
  if (count >= 4 * some) {
    std::memcpy(to, from, static_cast<size_t>(count) * sizeof(T));
  } else if (count >= some) {
    for (int64_t q = 0; q < count - some; q += some) std::memcpy(to + q, from + q, 8);
    std::memcpy(to + count - some, from + count - some, 8);
  } else {
    for (int64_t q = 0; q < count; ++q) to[q] = from[q];
  }
}

template <typename T>
void fill_row(T* to, T value, int64_t count) {
  if (count <= 0) return;
  to[0] = value;  // the usual padding is one pixel
  for (int64_t q = 1; q < count; ++q) to[q] = value;
}

// The first i >= 0 for which from + i * step >= bound.
inline int64_t first_at(int64_t from, int64_t step, int64_t bound) {
  return from < bound ? (bound - from + step - 1) / step : 0;
}

// out[taps][count], rows `apart`: the values that each tap meets at pixels [first, first + count).
template <typename T>
void columns(const IntegerWindows& w, const T* image, int64_t first, int64_t count, T* out, int64_t apart) {
  const T pad = static_cast<T>(w.pad);
  const int64_t step = w.stride.second * w.col_step, first_row = first / w.out_cols, first_col = first % w.out_cols;
  for (int64_t c = 0; c < w.channels; ++c) {
    for (int64_t i = 0; i < w.kernel_rows; ++i) {
      for (int64_t j = 0; j < w.kernel_cols; ++j) {
        const int64_t left = j * w.dilation.second - w.padding.second;
        const int64_t inside = first_at(left, w.stride.second, 0), outside = first_at(left, w.stride.second, w.width);
        const T* from = image + c * w.channel_step + left * w.col_step;
        int64_t y = first_row * w.stride.first + i * w.dilation.first - w.padding.first, col = first_col;
        for (int64_t at = 0; at < count; col = 0, y += w.stride.first) {
          const int64_t some = std::min(count - at, w.out_cols - col);
          const bool is_row = y >= 0 && y < w.height;
          const int64_t begin = is_row ? std::clamp<int64_t>(inside - col, 0, some) : some;
          const int64_t end = is_row ? std::clamp<int64_t>(outside - col, begin, some) : some;
          const T* x = from + y * w.row_step + col * step;
          T* to = out + at;
          fill_row(to, pad, begin);
          if (step == 1) {
            copy_row(to + begin, x + begin, end - begin);
          } else {
            for (int64_t q = begin; q < end; ++q) to[q] = x[q * step];
          }
          fill_row(to + end, pad, some - end);
          at += some;
        }
        out += apart;
      }
    }
  }
}

}  // namespace ulpgrad
