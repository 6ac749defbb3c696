#include "rows.h"

#include <cmath>

#include "rows_math.h"

namespace ulpgrad::ULPGRAD_ISA {

// exp(x - top) goes into y on the way to its sum, so that exp is taken once.
template <typename T>
static void softmax(const T* x, T* y, int64_t rows, int64_t n) {
  for (int64_t i = 0; i < rows; ++i, x += n, y += n) {
    const T top = largest(x, n);
    const T total = sum_of<T>(n, [&](const auto& at) {
      const Vec<T> e = exp_of_shifted<T>(at(x) - top);
      at.put(y, e);
      return e;
    });
    const T scale = 1 / total;
    each<T>(n, [&](const auto& at) { at.put(y, at(y) * scale); });
  }
}

template <typename T>
static void log_softmax(const T* x, T* y, int64_t rows, int64_t n) {
  for (int64_t i = 0; i < rows; ++i, x += n, y += n) {
    const T top = largest(x, n);
    const T log = std::log(sum_of<T>(n, [&](const auto& at) { return exp_of_shifted<T>(at(x) - top); }));
    each<T>(n, [&](const auto& at) { at.put(y, at(x) - top - log); });
  }
}

template <typename T>
static void softmax_gradient(const T* g, const T* y, T* dx, int64_t rows, int64_t n) {
  for (int64_t i = 0; i < rows; ++i, g += n, y += n, dx += n) {
    const T dot = sum_of<T>(n, [&](const auto& at) { return at(g) * at(y); });
    each<T>(n, [&](const auto& at) { at.put(dx, at(y) * (at(g) - dot)); });
  }
}

template <typename T>
static void log_softmax_gradient(const T* g, const T* y, T* dx, int64_t rows, int64_t n) {
  for (int64_t i = 0; i < rows; ++i, g += n, y += n, dx += n) {
    const T total = sum_of<T>(n, [&](const auto& at) { return at(g); });
    each<T>(n, [&](const auto& at) { at.put(dx, at(g) - exp_of_shifted<T>(at(y)) * total); });
  }
}

// All differences are taken from the maximum, where they are small: the loss keeps its digits when logits are large.
template <typename T>
static void cross_entropy(const T* x, const Targets& target, T* loss, T* lse, int64_t rows, int64_t n) {
  const T spread = static_cast<T>(target.smoothing / static_cast<double>(n)),
          hit = static_cast<T>(1 - target.smoothing);
  for (int64_t i = 0; i < rows; ++i, x += n) {
    const T top = largest(x, n);
    const T log = std::log(sum_of<T>(n, [&](const auto& at) { return exp_of_shifted<T>(at(x) - top); }));
    lse[i] = top + log;
    const int64_t t = target.index[i];
    loss[i] = 0;
    if (t == target.ignored) continue;
    if (hit != 0) loss[i] = hit * (log - (x[t] - top));
    if (spread != 0) loss[i] += spread * sum_of<T>(n, [&](const auto& at) { return log - (at(x) - top); });
  }
}

template <typename T>
static void cross_entropy_gradient(const T* g, const T* x, const Targets& target, const T* lse, T* dx, int64_t rows,
                                   int64_t n) {
  const T spread = static_cast<T>(target.smoothing / static_cast<double>(n)),
          hit = static_cast<T>(1 - target.smoothing);
  for (int64_t i = 0; i < rows; ++i, x += n, dx += n) {
    const int64_t t = target.index[i];
    if (t == target.ignored) {
      for (int64_t j = 0; j < n; ++j) dx[j] = 0;
      continue;
    }
    each<T>(n, [&](const auto& at) { at.put(dx, g[i] * (exp_of_shifted<T>(at(x) - lse[i]) - spread)); });
    dx[t] -= g[i] * hit;
  }
}

// Columns: every sweep goes down the rows, with one maximum and one sum per column.

template <typename T>
static void largest_in_columns(const T* x, T* top, int64_t n, int64_t width, int64_t stride) {
  for (int64_t j = 0; j < width; ++j) top[j] = -std::numeric_limits<T>::infinity();
  for (int64_t i = 0; i < n; ++i, x += stride) {
    each<T>(width, [&](const auto& at) {
      const Vec<T> v = at(x), best = at(top);
      at.put(top, v > best ? v : best);
    });
  }
}

template <typename T>
static void softmax_columns(const T* x, T* y, int64_t n, int64_t width, int64_t stride) {
  T top[kColumns], total[kColumns] = {};
  largest_in_columns(x, top, n, width, stride);
  for (int64_t i = 0; i < n; ++i) {
    each<T>(width, [&](const auto& at) {
      const Vec<T> e = exp_of_shifted<T>(at(x + i * stride) - at(top));
      at.put(y + i * stride, e);
      at.put(total, at(total) + e);
    });
  }
  for (int64_t j = 0; j < width; ++j) total[j] = 1 / total[j];
  for (int64_t i = 0; i < n; ++i, y += stride) each<T>(width, [&](const auto& at) { at.put(y, at(y) * at(total)); });
}

template <typename T>
static void log_softmax_columns(const T* x, T* y, int64_t n, int64_t width, int64_t stride) {
  T top[kColumns], total[kColumns] = {};
  largest_in_columns(x, top, n, width, stride);
  for (int64_t i = 0; i < n; ++i)
    each<T>(width, [&](const auto& at) { at.put(total, at(total) + exp_of_shifted<T>(at(x + i * stride) - at(top))); });
  for (int64_t j = 0; j < width; ++j) total[j] = std::log(total[j]);
  for (int64_t i = 0; i < n; ++i, x += stride, y += stride)
    each<T>(width, [&](const auto& at) { at.put(y, at(x) - at(top) - at(total)); });
}

template <typename T>
static void softmax_gradient_columns(const T* g, const T* y, T* dx, int64_t n, int64_t width, int64_t stride) {
  T dot[kColumns] = {};
  for (int64_t i = 0; i < n; ++i)
    each<T>(width, [&](const auto& at) { at.put(dot, at(dot) + at(g + i * stride) * at(y + i * stride)); });
  for (int64_t i = 0; i < n; ++i, g += stride, y += stride, dx += stride)
    each<T>(width, [&](const auto& at) { at.put(dx, at(y) * (at(g) - at(dot))); });
}

template <typename T>
static void log_softmax_gradient_columns(const T* g, const T* y, T* dx, int64_t n, int64_t width, int64_t stride) {
  T total[kColumns] = {};
  for (int64_t i = 0; i < n; ++i)
    each<T>(width, [&](const auto& at) { at.put(total, at(total) + at(g + i * stride)); });
  for (int64_t i = 0; i < n; ++i, g += stride, y += stride, dx += stride)
    each<T>(width, [&](const auto& at) { at.put(dx, at(g) - exp_of_shifted<T>(at(y)) * at(total)); });
}

template <typename T>
constexpr RowFunctions<T> kFunctions = {softmax<T>,
                                        log_softmax<T>,
                                        softmax_gradient<T>,
                                        log_softmax_gradient<T>,
                                        cross_entropy<T>,
                                        cross_entropy_gradient<T>,
                                        softmax_columns<T>,
                                        log_softmax_columns<T>,
                                        softmax_gradient_columns<T>,
                                        log_softmax_gradient_columns<T>};

extern const RowTable row_table = {kFunctions<float>, kFunctions<double>};

}  // namespace ulpgrad::ULPGRAD_ISA
