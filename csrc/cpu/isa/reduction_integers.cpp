#include "reduction_integers.h"

#include <limits>
#include <type_traits>

#include "rows_across.h"

namespace ulpgrad::ULPGRAD_ISA {

// How two partial results join, on vectors and on single values alike.
template <typename T>
struct Sum {
  static constexpr T start = 0;
  template <typename V>
  ULPGRAD_INLINE V join(V a, V b) {
    return a + b;
  }
};

template <typename T>
struct Prod {
  static constexpr T start = 1;
  template <typename V>
  ULPGRAD_INLINE V join(V a, V b) {
    return a * b;
  }
};

template <typename T>
struct Max {
  static constexpr T start = std::numeric_limits<T>::lowest();
  template <typename V>
  ULPGRAD_INLINE V join(V a, V b) {
    return b > a ? b : a;
  }
};

template <typename T>
struct Min {
  static constexpr T start = std::numeric_limits<T>::max();
  template <typename V>
  ULPGRAD_INLINE V join(V a, V b) {
    return b < a ? b : a;
  }
};

// What totals of S are made in: unsigned, because those wrap; values are extended as S has them.
using Total = uint64_t;

template <typename T, typename S>
ULPGRAD_INLINE T extended(S x) {
  return static_cast<T>(static_cast<std::conditional_t<std::is_signed_v<S>, int64_t, uint64_t>>(x));
}

constexpr int64_t kChunk = 4096;  // values of up to 16 bits whose sum fits 32

// n values, by loops that the compiler turns into vectors.
template <typename S, typename T, template <typename> class Op>
static T fold(const S* x, int64_t n) {
  T all = Op<T>::start;
  if constexpr (sizeof(S) <= 2 && std::is_same_v<Op<T>, Sum<T>>) {
    for (int64_t i = 0; i < n; i += kChunk) {
      const int64_t end = n - i < kChunk ? n : i + kChunk;
      int32_t some = 0;
      for (int64_t j = i; j < end; ++j) some += x[j];
      all += extended<T>(some);
    }
  } else {
    for (int64_t i = 0; i < n; ++i) all = Op<T>::join(all, extended<T>(x[i]));
  }
  return all;
}

// The first `count` of S in lanes of T, and `rest` in the other ones. Nothing is read from `end` on.
template <typename T, typename S>
ULPGRAD_INLINE Vec<T> load_as(const S* x, const S* end, int64_t count, T rest) {
  constexpr int lanes = kLanes<T>;
  Vec<T> lane, v;
#pragma GCC unroll 64
  for (int l = 0; l < lanes; ++l) lane[l] = static_cast<T>(l);
  if constexpr (sizeof(S) == sizeof(T)) {
    v = load_some(reinterpret_cast<const T*>(x), count);
  } else {
    typename Bytes<S, lanes* static_cast<int>(sizeof(S))>::type some = {};
    if constexpr (sizeof(S) == 4) {
      const Vec<S> all = load_some(x, count);
      std::memcpy(&some, &all, sizeof some);
    } else if (end - x >= lanes) {
      std::memcpy(&some, x, sizeof some);
    } else {
      std::memcpy(&some, x, static_cast<size_t>(count) * sizeof(S));
    }
    v = __builtin_convertvector(some, Vec<T>);
  }
  return lane < static_cast<T>(count) ? v : broadcast(rest);
}

// What lanes of short rows hold: 32 bits where that is enough for all that is made of so few values.
template <typename S, template <typename> class Op>
struct Lane {
  using Word = std::conditional_t<std::is_signed_v<S>, int32_t, uint32_t>;
  using type = std::conditional_t<sizeof(S) == 8, S, Word>;
};
template <typename S>
struct Lane<S, Sum> {
  using type = std::conditional_t<sizeof(S) <= 2, typename Lane<S, Max>::type, Total>;
};
template <typename S>
struct Lane<S, Prod> {
  using type = Total;
};

constexpr int kMostVectors = 4;  // of a short row

template <typename S, typename T, template <typename> class Op>
static void fold_runs(const S* x, int64_t rows, int64_t n, T* out) {
  using L = typename Lane<S, Op>::type;
  constexpr int lanes = kLanes<L>;
  const S* end = x + rows * n;
  int64_t r = 0;
  for (; n <= kMostVectors * lanes && r + lanes <= rows; r += lanes) {
    Vec<L> some[lanes];
    for (int k = 0; k < lanes; ++k) {
      const S* row = x + (r + k) * n;
      Vec<L> v = load_as<L>(row, end, n < lanes ? n : lanes, Op<L>::start);
      for (int64_t i = lanes; i < n; i += lanes)
        v = Op<L>::join(v, load_as<L>(row + i, end, n - i < lanes ? n - i : lanes, Op<L>::start));
      some[k] = v;
    }
    const Vec<L> done = across_rows<L, Op<L>>(some);
#pragma GCC unroll 16
    for (int k = 0; k < lanes; ++k) out[r + k] = extended<T>(done[k]);
  }
  for (; r < rows; ++r) out[r] = fold<S, T, Op>(x + r * n, n);
}

// Four rows are joined before the accumulators are touched.
template <typename S, typename T, template <typename> class Op>
static void fold_columns(const S* x, int64_t n, int64_t width, int64_t stride, T* out) {
  using J = Op<T>;
  for (int64_t j = 0; j < width; ++j) out[j] = J::start;
  int64_t i = 0;
  for (; i + 4 <= n; i += 4, x += 4 * stride) {
    const S *a = x, *b = a + stride, *c = b + stride, *d = c + stride;
    for (int64_t j = 0; j < width; ++j)
      out[j] = J::join(out[j], J::join(J::join(extended<T>(a[j]), extended<T>(b[j])),
                                       J::join(extended<T>(c[j]), extended<T>(d[j]))));
  }
  for (; i < n; ++i, x += stride)
    for (int64_t j = 0; j < width; ++j) out[j] = J::join(out[j], extended<T>(x[j]));
}

template <typename S>
static void runs(Count kind, const S* x, int64_t rows, int64_t n, void* out) {
  switch (kind) {
    case Count::sum:
      return fold_runs<S, Total, Sum>(x, rows, n, static_cast<Total*>(out));
    case Count::prod:
      return fold_runs<S, Total, Prod>(x, rows, n, static_cast<Total*>(out));
    case Count::max:
      return fold_runs<S, S, Max>(x, rows, n, static_cast<S*>(out));
    case Count::min:
      return fold_runs<S, S, Min>(x, rows, n, static_cast<S*>(out));
  }
}

template <typename S>
static void columns(Count kind, const S* x, int64_t n, int64_t width, int64_t stride, void* out) {
  switch (kind) {
    case Count::sum:
      return fold_columns<S, Total, Sum>(x, n, width, stride, static_cast<Total*>(out));
    case Count::prod:
      return fold_columns<S, Total, Prod>(x, n, width, stride, static_cast<Total*>(out));
    case Count::max:
      return fold_columns<S, S, Max>(x, n, width, stride, static_cast<S*>(out));
    case Count::min:
      return fold_columns<S, S, Min>(x, n, width, stride, static_cast<S*>(out));
  }
}

// The chunk whose best value is best of all, then its first place in it: pieces are looked through as a whole.
template <typename S, template <typename> class Op>
static int64_t arg_run(const S* x, int64_t n) {
  constexpr int64_t piece = 64;
  S best = fold<S, S, Op>(x, n < kChunk ? n : kChunk);
  int64_t i = 0;
  for (int64_t from = kChunk; from < n; from += kChunk) {
    const S joined = Op<S>::join(best, fold<S, S, Op>(x + from, n - from < kChunk ? n - from : kChunk));
    if (joined != best) best = joined, i = from;
  }
  for (; i + piece <= n; i += piece) {
    S found = 0;
    for (int64_t j = i; j < i + piece; ++j) found |= static_cast<S>(x[j] == best);
    if (found) break;
  }
  while (x[i] != best) ++i;
  return i;
}

template <typename S, template <typename> class Op>
static void arg_runs_of(const S* x, int64_t rows, int64_t n, int64_t* out) {
  using L = typename Lane<S, Op>::type;
  constexpr int lanes = kLanes<L>;
  constexpr auto none = std::numeric_limits<std::conditional_t<sizeof(L) == 4, int32_t, int64_t>>::max();
  const S* end = x + rows * n;
  Places<L> lane;
#pragma GCC unroll 16
  for (int l = 0; l < lanes; ++l) lane[l] = l;
  int64_t r = 0;
  for (; n <= kMostVectors * lanes && r + lanes <= rows; r += lanes) {
    const auto value = [&](int k, int64_t i) {
      return load_as<L>(x + (r + k) * n + i, end, n - i < lanes ? n - i : lanes, Op<L>::start);
    };
    arg_across<L, Op<L>>(
        out + r,
        [&](int k) {
          Vec<L> v = value(k, 0);
          for (int64_t i = lanes; i < n; i += lanes) v = Op<L>::join(v, value(k, i));
          return v;
        },
        [&](int k, L best) {
          Places<L> where = Places<L>{} + none;
          for (int64_t i = 0; i < n; i += lanes) {
            const Places<L> hit = (value(k, i) == best) & (where == none);
            where = hit ? lane + static_cast<decltype(lane[0] + 0)>(i) : where;
          }
          return where;
        });
  }
  for (; r < rows; ++r) out[r] = arg_run<S, Op>(x + r * n, n);
}

template <typename S>
static void arg_runs(Count kind, const S* x, int64_t rows, int64_t n, int64_t* out) {
  if (n == 1) {
    for (int64_t r = 0; r < rows; ++r) out[r] = 0;
    return;
  }
  kind == Count::min ? arg_runs_of<S, Min>(x, rows, n, out) : arg_runs_of<S, Max>(x, rows, n, out);
}

template <typename S>
constexpr CountFunctions<S> kFunctions = {runs<S>, columns<S>, arg_runs<S>};

extern const CountTable count_table = {kFunctions<int8_t>,   kFunctions<int16_t>, kFunctions<int32_t>,
                                       kFunctions<int64_t>,  kFunctions<uint8_t>, kFunctions<uint16_t>,
                                       kFunctions<uint32_t>, kFunctions<uint64_t>};

}  // namespace ulpgrad::ULPGRAD_ISA
