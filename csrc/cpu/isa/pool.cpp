// Row by row: means and maxima of windows in vectors of neighbouring outputs; their gradients tap by tap, where the
// outputs of a row write every stride-th value of one image row, so that the innermost loop has no branches.
#include "pool.h"

#include "pool_max.h"

namespace ulpgrad::ULPGRAD_ISA {

// Calls body(image row, first image column, begin, end) for each tap of a row of windows: outputs [begin, end) read
// every stride-th value of the row, from where output 0 would. Taps that no output of the row sees are not visited.
template <typename Body>
ULPGRAD_INLINE void for_taps(const PoolGeometry& p, int64_t row, const Body& body) {
  const int64_t top = row * p.stride[0] - p.padding[0];
  const int64_t last = end_inside(top, p.dilation[0], p.kernel[0], p.height);
  const int64_t left_of_last = (p.columns - 1) * p.stride[1] - p.padding[1];
  const int64_t first_column = first_inside(left_of_last, p.dilation[1]);
  const int64_t last_column = end_inside(-p.padding[1], p.dilation[1], p.kernel[1], p.width);
  for (int64_t i = first_inside(top, p.dilation[0]); i < last; ++i) {
    for (int64_t j = first_column; j < last_column; ++j) {
      const int64_t left = j * p.dilation[1] - p.padding[1];
      body((top + i * p.dilation[0]), left, first_inside(left, p.stride[1]),
           end_inside(left, p.stride[1], p.columns, p.width));
    }
  }
}

// Whether all windows are divided by the same number.
ULPGRAD_INLINE bool is_even(const PoolGeometry& p) { return p.include_padding || !(p.padding[0] || p.padding[1]); }

// What the sum of a window is divided by.
ULPGRAD_INLINE int64_t count(const PoolGeometry& p, int64_t row, int64_t column) {
  if (p.include_padding) return p.kernel[0] * p.kernel[1];
  const int64_t top = row * p.stride[0] - p.padding[0], left = column * p.stride[1] - p.padding[1];
  return (end_inside(top, 1, p.kernel[0], p.height) - first_inside(top, 1)) *
         (end_inside(left, 1, p.kernel[1], p.width) - first_inside(left, 1));
}

// The sum of n neighbours.
template <typename T>
ULPGRAD_INLINE T run_sum(const T* x, int64_t n) {
  Vec<T> sums{};
  int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) sums += load(x + i);
  return sum<T>(sums + load_some(x + i, n - i));
}

// Means of windows [column, column + lanes) of a row; all their taps are on the image along the row.
template <int lanes, int step, typename T>
ULPGRAD_INLINE void mean_windows(const PoolGeometry& p, const T* x, int64_t row, const Taps& taps, int64_t column,
                                 T* y) {
  using Values = typename Bytes<T, lanes * sizeof(T)>::type;
  const int64_t stride = step ? step : p.stride[1];
  const T* from = x + (row * p.stride[0] - p.padding[0] + taps.begin) * p.width + column * stride - p.padding[1];
  Values sums{};
  for (int64_t i = taps.begin; i < taps.end; ++i, from += p.width) {
    for (int64_t j = 0; j < p.kernel[1]; ++j) sums += every<Values, lanes, step>(from + j, stride);
  }
  sums /= static_cast<T>(count(p, row, column)) - Values{};
  std::memcpy(y + column, &sums, sizeof sums);
}

// The mean of one window, wherever it lies.
template <typename T>
static void mean_window(const PoolGeometry& p, const T* x, int64_t row, const Taps& taps, int64_t column, T* y) {
  const int64_t left = column * p.stride[1] - p.padding[1];
  const T* from = x + (row * p.stride[0] - p.padding[0] + taps.begin) * p.width + left;
  T sum = 0;
  for (int64_t i = taps.begin; i < taps.end; ++i, from += p.width) {
    for (int64_t j = first_inside(left, 1); j < end_inside(left, 1, p.kernel[1], p.width); ++j) sum += from[j];
  }
  y[column] = sum / static_cast<T>(count(p, row, column));
}

template <int lanes, int step, typename T>
static void mean_rows(const PoolGeometry& p, const T* x, T* y) {
  for (int64_t row = 0; row < p.rows; ++row, y += p.columns) {
    const int64_t top = row * p.stride[0] - p.padding[0];
    const Taps taps{first_inside(top, 1), end_inside(top, 1, p.kernel[0], p.height)};
    for_windows<lanes, step>(
        p, [&](int64_t column) { mean_windows<lanes, step>(p, x, row, taps, column, y); },
        [&](int64_t column) { mean_window(p, x, row, taps, column, y); });
  }
}

// Vectors as long as a row of windows allows.
template <typename T, int lanes = kLanes<T>>
static void avg(const PoolGeometry& p, const T* x, T* y) {
  if (is_whole_rows(p)) {
    const int64_t n = p.kernel[0] * p.width;
    for (int64_t row = 0; row < p.rows; ++row) y[row] = run_sum(x + row * p.stride[0] * p.width, n) / static_cast<T>(n);
    return;
  }
  if constexpr (lanes > 2) {
    if (p.columns < lanes) return avg<T, lanes / 2>(p, x, y);
  }
  const auto run = p.stride[1] == 1   ? mean_rows<lanes, 1, T>
                   : p.stride[1] == 2 ? mean_rows<lanes, 2, T>
                                      : mean_rows<lanes, 0, T>;
  run(p, x, y);
}

template <typename T>
static void avg_gradient(const PoolGeometry& p, const T* g, T* dx) {
  if (is_whole_rows(p)) {
    const int64_t n = p.kernel[0] * p.width;
    for (int64_t row = 0; row < p.rows; ++row) {
      const T share = g[row] / static_cast<T>(n);
      T* const to = dx + row * p.stride[0] * p.width;
      for (int64_t i = 0; i < n; ++i) to[i] += share;
    }
    return;
  }
  constexpr int64_t some = 128;  // outputs whose shares are worked out together
  for (int64_t row = 0; row < p.rows; ++row, g += p.columns) {
    for (int64_t first = 0; first < p.columns; first += some) {
      const int64_t last = first + some < p.columns ? first + some : p.columns;
      T shares[some];
      for (int64_t i = first; i < last; ++i) {
        shares[i - first] = g[i] / static_cast<T>(is_even(p) ? p.kernel[0] * p.kernel[1] : count(p, row, i));
      }
      for_taps(p, row, [&](int64_t h, int64_t left, int64_t begin, int64_t end) {
        T* const to = dx + h * p.width + left;
        const int64_t from = begin > first ? begin : first, until = end < last ? end : last;
        for (int64_t i = from; i < until; ++i) to[i * p.stride[1]] += shares[i - first];
      });
    }
  }
}

// Integer codes need no places, so a window's rows are folded first, a whole line of the image at a time, and its
// columns afterwards; where windows do not overlap and fill the line, in one loop over all lines.
struct Largest {
  template <typename T>
  ULPGRAD_INLINE T of(T a, T b) {
    return a > b ? a : b;
  }
};
struct Sum {
  template <typename T>
  ULPGRAD_INLINE T of(T a, T b) {
    return a + b;
  }
};

template <typename Fold, typename S, typename T>
ULPGRAD_INLINE void fold_line(const T* __restrict x, S* __restrict y, int64_t n, int64_t step, bool first) {
  if (first) {
    for (int64_t i = 0; i < n; ++i) y[i] = x[i * step];
  } else {
    for (int64_t i = 0; i < n; ++i) y[i] = Fold::template of<S>(y[i], x[i * step]);
  }
}

// S is the type of folded values, `memory` holds rows * width of them. Without padding.
template <typename Fold, int step, typename S, typename T>
static void fold_plane(const PoolGeometry& p, const T* x, S* y, S* memory) {
  for (int64_t row = 0; row < p.rows; ++row)
    for (int64_t i = 0; i < p.kernel[0]; ++i)
      fold_line<Fold>(x + (row * p.stride[0] + i * p.dilation[0]) * p.width, memory + row * p.width, p.width, 1,
                      i == 0);
  const int64_t stride = step ? step : p.stride[1], last = (p.kernel[1] - 1) * p.dilation[1];
  const bool together = p.width == p.columns * stride && last < stride;
  const int64_t lines = together ? 1 : p.rows, columns = together ? p.rows * p.columns : p.columns;
  for (int64_t line = 0; line < lines; ++line)
    for (int64_t j = 0; j < p.kernel[1]; ++j)
      fold_line<Fold>(memory + line * p.width + j * p.dilation[1], y + line * columns, columns, stride, j == 0);
}

template <typename Fold, typename S, typename T>
static void fold(const PoolGeometry& p, const T* x, S* y, S* memory) {
  const auto run = p.stride[1] == 1   ? fold_plane<Fold, 1, S, T>
                   : p.stride[1] == 2 ? fold_plane<Fold, 2, S, T>
                                      : fold_plane<Fold, 0, S, T>;
  run(p, x, y, memory);
}

ULPGRAD_INLINE bool is_padded(const PoolGeometry& p) { return p.padding[0] || p.padding[1]; }

template <typename T>
static void integer_max(const PoolGeometry& p, const T* x, T* y, void* memory) {
  if (!is_padded(p)) return fold<Largest>(p, x, y, static_cast<T*>(memory));
  const T lowest = T(-1) < T(0) ? static_cast<T>(-(1 << (8 * sizeof(T) - 1))) : T(0);
  for (int64_t row = 0; row < p.rows; ++row, y += p.columns) {
    T* const __restrict best = y;
    for (int64_t i = 0; i < p.columns; ++i) best[i] = lowest;
    for_taps(p, row, [&](int64_t h, int64_t left, int64_t begin, int64_t end) {
      const T* const __restrict from = x + h * p.width + left;
      for (int64_t i = begin; i < end; ++i) best[i] = Largest::of(best[i], from[i * p.stride[1]]);
    });
  }
}

// sum / count to the nearest integer. The quotient of doubles is exact enough for its floor to be that of the fraction.
template <bool even>
ULPGRAD_INLINE int32_t rounded_mean(int32_t sum, int32_t count) {
  const double numerator = 2.0 * sum + count, denominator = 2.0 * count, quotient = numerator / denominator;
  int32_t whole = static_cast<int32_t>(quotient);
  whole -= whole > quotient;
  if (even) whole -= (whole * denominator == numerator) & whole & 1;
  return whole;
}

template <bool even, typename T>
static void means(const int32_t* __restrict sums, T* __restrict y, int64_t n, int32_t count) {
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(rounded_mean<even>(sums[i], count));
}

template <typename T, bool even>
static void integer_avg_of(const PoolGeometry& p, const T* x, T* y, int32_t padding_value, int32_t* memory) {
  const int32_t all = static_cast<int32_t>(p.kernel[0] * p.kernel[1]);
  if (!is_padded(p)) {
    int32_t* const sums = memory + p.rows * p.width;
    fold<Sum>(p, x, sums, memory);
    return means<even>(sums, y, p.rows * p.columns, all);
  }
  PoolGeometry seen = p;
  seen.include_padding = false;
  for (int64_t row = 0; row < p.rows; ++row, y += p.columns) {
    int32_t* const __restrict sum = memory;
    for (int64_t i = 0; i < p.columns; ++i) sum[i] = 0;
    for_taps(p, row, [&](int64_t h, int64_t left, int64_t begin, int64_t end) {
      const T* const __restrict from = x + h * p.width + left;
      for (int64_t i = begin; i < end; ++i) sum[i] += from[i * p.stride[1]];
    });
    for (int64_t i = 0; i < p.columns; ++i) {
      const int32_t inside = static_cast<int32_t>(count(seen, row, i));
      y[i] = static_cast<T>(p.include_padding ? rounded_mean<even>(sum[i] + padding_value * (all - inside), all)
                                              : rounded_mean<even>(sum[i], inside));
    }
  }
}

template <typename T>
static void integer_avg(const PoolGeometry& p, const T* x, T* y, int32_t padding_value, bool even, void* memory) {
  const auto run = even ? integer_avg_of<T, true> : integer_avg_of<T, false>;
  run(p, x, y, padding_value, static_cast<int32_t*>(memory));
}

extern const PoolTable pool_table = {{max<float, int32_t>, avg<float>, avg_gradient<float>},
                                     {max<double, int64_t>, avg<double>, avg_gradient<double>},
                                     {integer_max<int8_t>, integer_avg<int8_t>},
                                     {integer_max<uint8_t>, integer_avg<uint8_t>},
                                     {integer_max<int16_t>, integer_avg<int16_t>}};

}  // namespace ulpgrad::ULPGRAD_ISA
