// Windows of one row of results, some side by side: their sums do not wait for each other.
#include "pool_adaptive.h"

#include <algorithm>

namespace ulpgrad::ULPGRAD_ISA {

constexpr int64_t kTogether = 8;  // windows

ULPGRAD_INLINE int64_t size_of(const PoolSpan& s) { return s.end - s.begin; }

template <typename T>
static void mean(const AdaptiveGeometry& p, const T* x, T* y) {
  for (int64_t row = 0; row < p.rows; ++row, y += p.columns) {
    const PoolSpan lines = p.row_spans[row];
    for (int64_t first = 0; first < p.columns; first += kTogether) {
      const PoolSpan* const spans = p.column_spans + first;
      const int64_t some = std::min(kTogether, p.columns - first);
      int64_t least = size_of(spans[0]), most = least;
      for (int64_t q = 1; q < some; ++q) {
        least = std::min(least, size_of(spans[q]));
        most = std::max(most, size_of(spans[q]));
      }
      T sums[kTogether] = {};
      for (int64_t line = lines.begin; line < lines.end; ++line) {
        const T* const from = x + line * p.width;
        for (int64_t j = 0; j < least; ++j) {
          for (int64_t q = 0; q < some; ++q) sums[q] += from[spans[q].begin + j];
        }
        for (int64_t j = least; j < most; ++j) {
          for (int64_t q = 0; q < some; ++q) {
            if (j < size_of(spans[q])) sums[q] += from[spans[q].begin + j];
          }
        }
      }
      for (int64_t q = 0; q < some; ++q) y[first + q] = sums[q] / static_cast<T>(size_of(lines) * size_of(spans[q]));
    }
  }
}

template <typename T>
static void mean_gradient(const AdaptiveGeometry& p, const T* g, T* dx) {
  for (int64_t row = 0; row < p.rows; ++row) {
    const PoolSpan lines = p.row_spans[row];
    for (int64_t column = 0; column < p.columns; ++column, ++g) {
      const PoolSpan span = p.column_spans[column];
      const T share = *g / static_cast<T>(size_of(lines) * size_of(span));
      for (int64_t line = lines.begin; line < lines.end; ++line) {
        for (int64_t j = span.begin; j < span.end; ++j) dx[line * p.width + j] += share;
      }
    }
  }
}

template <typename T>
static void max(const AdaptiveGeometry& p, const T* x, T* y, int64_t* places) {
  for (int64_t row = 0; row < p.rows; ++row) {
    const PoolSpan lines = p.row_spans[row];
    for (int64_t column = 0; column < p.columns; ++column) {
      const PoolSpan span = p.column_spans[column];
      int64_t place = lines.begin * p.width + span.begin;
      T best = x[place];
      for (int64_t line = lines.begin; line < lines.end; ++line) {
        for (int64_t at = line * p.width + span.begin; at < line * p.width + span.end; ++at) {
          const T value = x[at];
          if (value > best || (value != value && best == best)) best = value, place = at;
        }
      }
      *y++ = best;
      *places++ = place;
    }
  }
}

extern const AdaptiveTable adaptive_table = {{mean<float>, mean_gradient<float>, max<float>},
                                             {mean<double>, mean_gradient<double>, max<double>}};

}  // namespace ulpgrad::ULPGRAD_ISA
