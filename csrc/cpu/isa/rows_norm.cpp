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
constexpr int64_t kWidth = kChannelsTogether;

// One position per sample: channels lie side by side and are taken row by row, up to kWidth of them. f(at, i, terms)
// gives what row i adds to each of `count` sums; four rows are joined before the sums, which lie in the cache, are
// touched.
template <int count, typename T, typename F>
ULPGRAD_INLINE void column_sums(int64_t n, int64_t width, T (&total)[count][kWidth], const F& f) {
  for (int k = 0; k < count; ++k) std::memset(total[k], 0, sizeof total[k]);
  for (int64_t from = 0; from < n; from += kChunk) {
    T part[count][kWidth] = {};
    const int64_t last = n - from < kChunk ? n : from + kChunk;
    int64_t i = from;
    for (; i + 4 <= last; i += 4) {
      each<T>(width, [&](const auto& at) {
        Vec<T> terms[4][count];
#pragma GCC unroll 4
        for (int r = 0; r < 4; ++r) f(at, i + r, terms[r]);
        for (int k = 0; k < count; ++k)
          at.put(part[k], at(part[k]) + ((terms[0][k] + terms[1][k]) + (terms[2][k] + terms[3][k])));
      });
    }
    for (; i < last; ++i) {
      each<T>(width, [&](const auto& at) {
        Vec<T> terms[count];
        f(at, i, terms);
        for (int k = 0; k < count; ++k) at.put(part[k], at(part[k]) + terms[k]);
      });
    }
    for (int k = 0; k < count; ++k)
      each<T>(width, [&](const auto& at) { at.put(total[k], at(total[k]) + at(part[k])); });
  }
}

template <typename T>
ULPGRAD_INLINE Vec<T> square_root(Vec<T> v) {
  for (int k = 0; k < kLanes<T>; ++k) v[k] = std::sqrt(v[k]);
  return v;
}

template <typename S, typename T = Wide<S>>
static void channel_columns(const ChannelNorm<S>& a, int64_t begin, int64_t end) {
  const T count = static_cast<T>(a.n);
  const int64_t width = end - begin;
  const S *const x = a.x + begin, *const weight = a.weight ? a.weight + begin : nullptr,
                 *const bias = a.bias ? a.bias + begin : nullptr;
  T *const mean = a.mean + begin, *const rstd = a.rstd + begin, total[1][kWidth];
  column_sums(a.n, width, total, [&](const auto& at, int64_t i, Vec<T>* terms) { terms[0] = at(x + i * a.c); });
  each<T>(width, [&](const auto& at) { at.put(mean, at(total[0]) / count); });
  column_sums(a.n, width, total, [&](const auto& at, int64_t i, Vec<T>* terms) {
    const Vec<T> d = at(x + i * a.c) - at(mean);
    terms[0] = d * d;
  });
  each<T>(width,
          [&](const auto& at) { at.put(rstd, T(1) / square_root<T>(at(total[0]) / count + static_cast<T>(a.eps))); });
  for (int64_t i = 0; i < a.n; ++i) {
    each<T>(width, [&](const auto& at) {
      Vec<T> v = (at(x + i * a.c) - at(mean)) * at(rstd);
      if (weight) v = v * at(weight);
      if (bias) v = v + at(bias);
      at.put(a.y + begin + i * a.c, v);
    });
  }
}

template <typename S, typename T = Wide<S>>
static void channel_columns_gradient(const ChannelNorm<S>& a, int64_t begin, int64_t end) {
  const T count = static_cast<T>(a.n);
  const int64_t width = end - begin;
  const S *const x = a.x + begin, *const g = a.g + begin;
  const T *const mean = a.mean + begin, *const rstd = a.rstd + begin;
  T total[2][kWidth], scale[kWidth];
  column_sums(a.n, width, total, [&](const auto& at, int64_t i, Vec<T>* terms) {
    terms[0] = at(g + i * a.c);
    terms[1] = terms[0] * ((at(x + i * a.c) - at(mean)) * at(rstd));
  });
  each<T>(width, [&](const auto& at) {
    at.put(a.dbias + begin, at(total[0]));
    at.put(a.dweight + begin, at(total[1]));
    at.put(scale, a.weight ? at(a.weight + begin) * at(rstd) : at(rstd));
    at.put(total[0], at(total[0]) / count);
    at.put(total[1], at(total[1]) / count);
  });
  for (int64_t i = 0; i < a.n; ++i) {
    each<T>(width, [&](const auto& at) {
      const Vec<T> normal = (at(x + i * a.c) - at(mean)) * at(rstd);
      at.put(a.y + begin + i * a.c, (at(g + i * a.c) - at(total[0]) - normal * at(total[1])) * at(scale));
    });
  }
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
