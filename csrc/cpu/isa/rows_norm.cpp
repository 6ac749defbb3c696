#include "rows_norm.h"

#include <cmath>
#include <type_traits>

#include "rows_math.h"

namespace ulpgrad::ULPGRAD_ISA {

// Calls f with std::true_type or std::false_type, so that an absent operand costs nothing inside loops.
template <typename F>
ULPGRAD_INLINE void with(bool flag, const F& f) {
  if (flag) {
    f(std::true_type{});
  } else {
    f(std::false_type{});
  }
}

template <typename S, bool centered, typename T = Wide<S>>
static void forward_rows(const RowNorm<S>& a, int64_t begin, int64_t end) {
  const int64_t n = a.n;
  for (int64_t i = begin; i < end; ++i) {
    const S* x = a.x + i * n;
    S* y = a.y + i * n;
    const T mean = centered ? sum_of<T>(n, [&](const auto& at) { return at(x); }) / static_cast<T>(n) : T(0);
    const T squares = sum_of<T>(n, [&](const auto& at) {
      const Vec<T> d = at(x) - mean;
      return d * d;
    });
    const T rstd = 1 / std::sqrt(squares / static_cast<T>(n) + static_cast<T>(a.eps));
    if (centered) a.mean[i] = mean;
    a.rstd[i] = rstd;
    with(a.weight, [&](auto has_weight) {
      with(a.bias, [&](auto has_bias) {
        each<T>(n, [&](const auto& at) {
          Vec<T> v = (at(x) - mean) * rstd;
          if (has_weight) v = v * at(a.weight);
          if (has_bias) v = v + at(a.bias);
          at.put(y, v);
        });
      });
    });
  }
}

template <typename S, typename T = Wide<S>>
static void forward(const RowNorm<S>& a, int64_t begin, int64_t end) {
  a.mean ? forward_rows<S, true>(a, begin, end) : forward_rows<S, false>(a, begin, end);
}

// The first sweep takes a row's two sums and adds to the parameters' gradients, the second writes dx.
template <typename S, bool centered, typename T = Wide<S>>
static void gradient_rows(const RowNormGradient<S>& a, int64_t begin, int64_t end) {
  const int64_t n = a.n;
  for (int64_t j = 0; j < n; ++j) a.dweight[j] = 0;
  if (centered)
    for (int64_t j = 0; j < n; ++j) a.dbias[j] = 0;
  for (int64_t i = begin; i < end; ++i) {
    const S *x = a.x + i * n, *g = a.g + i * n;
    const T mean = centered ? a.mean[i] : T(0), rstd = a.rstd[i];
    S* dx = a.dx + i * n;
    with(a.weight, [&](auto has_weight) {
      T total[2];
      sums<T>(n, total, [&](const auto& at, Vec<T>* acc) {
        const Vec<T> v = at(g), normal = (at(x) - mean) * rstd;
        at.put(a.dweight, at(a.dweight) + v * normal);
        if (centered) at.put(a.dbias, at(a.dbias) + v);
        const Vec<T> scaled = has_weight ? v * at(a.weight) : v;
        if (centered) acc[0] += scaled;
        acc[1] += scaled * normal;  // lanes past the end hold v = 0
      });
      const T constant = total[0] / static_cast<T>(n), slope = total[1] / static_cast<T>(n);
      each<T>(n, [&](const auto& at) {
        const Vec<T> scaled = has_weight ? at(g) * at(a.weight) : at(g), normal = (at(x) - mean) * rstd;
        at.put(dx, (scaled - constant - normal * slope) * rstd);
      });
    });
  }
}

template <typename S, typename T = Wide<S>>
static void gradient(const RowNormGradient<S>& a, int64_t begin, int64_t end) {
  a.mean ? gradient_rows<S, true>(a, begin, end) : gradient_rows<S, false>(a, begin, end);
}

constexpr int64_t kChunk = 128;  // values of a channel that are added up before their sum joins the total

// One position per sample: channels lie side by side, a vector of them at a time. f(at, row, acc) adds to acc[0 ..
// count - 1].
template <typename T, int count, typename At, typename F>
ULPGRAD_INLINE void column_sums(const At& at, int64_t n, Vec<T> (&total)[count], const F& f) {
  for (int k = 0; k < count; ++k) total[k] = Vec<T>{};
  for (int64_t from = 0; from < n; from += kChunk) {
    Vec<T> acc[count] = {};
    for (int64_t i = from; i < n && i < from + kChunk; ++i) f(at, i, acc);
    for (int k = 0; k < count; ++k) total[k] += acc[k];
  }
}

template <typename T, typename F>
ULPGRAD_INLINE void each_column(int64_t begin, int64_t end, const F& f) {
  int64_t j = begin;
  for (; j + kLanes<T> <= end; j += kLanes<T>) f(Whole<T>{j});
  if (j < end) f(Partial<T>{j, end - j});
}

template <typename T>
ULPGRAD_INLINE Vec<T> square_root(Vec<T> v) {
  for (int k = 0; k < kLanes<T>; ++k) v[k] = std::sqrt(v[k]);
  return v;
}

template <typename S, typename T = Wide<S>>
static void channel_columns(const ChannelNorm<S>& a, int64_t begin, int64_t end) {
  const T count = static_cast<T>(a.n);
  each_column<T>(begin, end, [&](const auto& at) {
    Vec<T> total[1];
    column_sums<T>(at, a.n, total, [&](const auto& here, int64_t i, Vec<T>* acc) { acc[0] += here(a.x + i * a.c); });
    const Vec<T> mean = total[0] / count;
    column_sums<T>(at, a.n, total, [&](const auto& here, int64_t i, Vec<T>* acc) {
      const Vec<T> d = here(a.x + i * a.c) - mean;
      acc[0] += d * d;
    });
    const Vec<T> rstd = T(1) / square_root<T>(total[0] / count + static_cast<T>(a.eps));
    at.put(a.mean, mean);
    at.put(a.rstd, rstd);
    const Vec<T> weight = a.weight ? at(a.weight) : broadcast(T(1)), bias = a.bias ? at(a.bias) : Vec<T>{};
    for (int64_t i = 0; i < a.n; ++i) at.put(a.y + i * a.c, (at(a.x + i * a.c) - mean) * rstd * weight + bias);
  });
}

template <typename S, typename T = Wide<S>>
static void channel_columns_gradient(const ChannelNorm<S>& a, int64_t begin, int64_t end) {
  const T count = static_cast<T>(a.n);
  each_column<T>(begin, end, [&](const auto& at) {
    const Vec<T> mean = at(a.mean), rstd = at(a.rstd);
    Vec<T> total[2];
    column_sums<T>(at, a.n, total, [&](const auto& here, int64_t i, Vec<T>* acc) {
      const Vec<T> g = here(a.g + i * a.c);
      acc[0] += g;
      acc[1] += g * ((here(a.x + i * a.c) - mean) * rstd);
    });
    at.put(a.dbias, total[0]);
    at.put(a.dweight, total[1]);
    const Vec<T> scale = a.weight ? at(a.weight) * rstd : rstd, constant = total[0] / count, slope = total[1] / count;
    for (int64_t i = 0; i < a.n; ++i) {
      const Vec<T> normal = (at(a.x + i * a.c) - mean) * rstd;
      at.put(a.y + i * a.c, (at(a.g + i * a.c) - constant - normal * slope) * scale);
    }
  });
}

// Many positions per sample: a channel is n runs of s values; the sums of runs are added in order, in double.
template <typename S, int count, typename F, typename T = Wide<S>>
ULPGRAD_INLINE void plane_sums(const ChannelNorm<S>& a, int64_t channel, double (&total)[count], const F& f) {
  for (int k = 0; k < count; ++k) total[k] = 0;
  for (int64_t i = 0; i < a.n; ++i) {
    const int64_t run = (i * a.c + channel) * a.s;
    T part[count];
    sums<T>(a.s, part, [&](const auto& at, Vec<T>* acc) { f(at, run, acc); });
    for (int k = 0; k < count; ++k) total[k] += part[k];
  }
}

template <typename S, typename T = Wide<S>>
static void channel_planes(const ChannelNorm<S>& a, int64_t begin, int64_t end) {
  const double count = static_cast<double>(a.n * a.s);
  for (int64_t c = begin; c < end; ++c) {
    double total[1];
    plane_sums<S>(a, c, total, [&](const auto& at, int64_t run, Vec<T>* acc) { acc[0] += at(a.x + run); });
    const T mean = static_cast<T>(total[0] / count);
    plane_sums<S>(a, c, total, [&](const auto& at, int64_t run, Vec<T>* acc) {
      const Vec<T> d = at.keep(at(a.x + run) - mean);
      acc[0] += d * d;
    });
    const T rstd = static_cast<T>(1 / std::sqrt(total[0] / count + a.eps));
    a.mean[c] = mean;
    a.rstd[c] = rstd;
    const T weight = a.weight ? widen(a.weight[c]) : T(1), bias = a.bias ? widen(a.bias[c]) : T(0);
    for (int64_t i = 0; i < a.n; ++i) {
      const int64_t run = (i * a.c + c) * a.s;
      each<T>(a.s, [&](const auto& at) { at.put(a.y + run, (at(a.x + run) - mean) * rstd * weight + bias); });
    }
  }
}

template <typename S, typename T = Wide<S>>
static void channel_planes_gradient(const ChannelNorm<S>& a, int64_t begin, int64_t end) {
  const double count = static_cast<double>(a.n * a.s);
  for (int64_t c = begin; c < end; ++c) {
    const T mean = a.mean[c], rstd = a.rstd[c];
    double total[2];
    plane_sums<S>(a, c, total, [&](const auto& at, int64_t run, Vec<T>* acc) {
      const Vec<T> g = at(a.g + run);  // zero in lanes past the end
      acc[0] += g;
      acc[1] += g * ((at(a.x + run) - mean) * rstd);
    });
    a.dbias[c] = static_cast<T>(total[0]);
    a.dweight[c] = static_cast<T>(total[1]);
    const T scale = a.weight ? widen(a.weight[c]) * rstd : rstd;
    const T constant = static_cast<T>(total[0] / count), slope = static_cast<T>(total[1] / count);
    for (int64_t i = 0; i < a.n; ++i) {
      const int64_t run = (i * a.c + c) * a.s;
      each<T>(a.s, [&](const auto& at) {
        const Vec<T> normal = (at(a.x + run) - mean) * rstd;
        at.put(a.y + run, (at(a.g + run) - constant - normal * slope) * scale);
      });
    }
  }
}

template <typename S, typename T = Wide<S>>
static void channels(const ChannelNorm<S>& a, int64_t begin, int64_t end) {
  a.s == 1 ? channel_columns(a, begin, end) : channel_planes(a, begin, end);
}

template <typename S, typename T = Wide<S>>
static void channel_gradient(const ChannelNorm<S>& a, int64_t begin, int64_t end) {
  a.s == 1 ? channel_columns_gradient(a, begin, end) : channel_planes_gradient(a, begin, end);
}

template <typename S>
constexpr NormFunctions<S> kFunctions = {forward<S>, gradient<S>, channels<S>, channel_gradient<S>};

extern const NormTable norm_table = {kFunctions<float>, kFunctions<double>, kFunctions<Bfloat16>, kFunctions<Float16>};

}  // namespace ulpgrad::ULPGRAD_ISA
