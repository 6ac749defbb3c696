// Sums in a chosen format: columns of results lie in vector lanes, terms come in order. Eight vectors go side by side,
// since one chain of additions waits for itself; blocks of terms are packed, so that any strides read as rows.
//
// Products and sums are not contracted: where a product of float64 values is rounded, it is so on every instruction
// set.
#if defined(__clang__)
#pragma clang fp contract(off)
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off")
#endif

#include "accumulate_round.h"
#include "philox.h"
#include "scratch.h"

namespace ulpgrad::ULPGRAD_ISA {

constexpr int64_t kDepth = 128;  // terms in a packed block
constexpr int64_t kRows = 32;    // rows that share it

ULPGRAD_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// The random words of U vectors of results. Deterministic rounding takes none.
template <typename Step, int U, bool = Step::kRandom>
struct Draw {
  Draw(const Accumulation&, int64_t, int64_t) {}
  void seek(int64_t) {}
  void follow(int64_t) {}
  NoWord word(int, int64_t) const { return {}; }
};

template <typename Step, int U>
struct Draw<Step, U, true> {
  uint64_t keys[20], counter_low, counter_high;
  Word first[U];  // of each result, its block counted from the stream's begin
  Word words[U][4];

  // Results `result`, `result + stride`, ...
  Draw(const Accumulation& how, int64_t result, int64_t stride)
      : counter_low(how.counter_low), counter_high(how.counter_high) {
    philox_keys(how.key, keys);
    for (int u = 0; u < U; ++u)
      for (int l = 0; l < kLanes<double>; ++l)
        first[u][l] = static_cast<uint64_t>((result + (u * kLanes<double> + l) * stride) * how.blocks);
  }

  // Make the words of addition t; `follow` makes them only where a block of four begins.
  void seek(int64_t t) {
    for (int u = 0; u < U; ++u) {
      const Word low = first[u] + counter_low + static_cast<uint64_t>(t / 4);
      const Word carry = (Word)(low < broadcast(counter_low));  // all ones, which is -1
      philox(keys, low, counter_high - carry, words[u]);
      for (Word& w : words[u]) w &= 0xFFFFFFFF;
    }
  }
  void follow(int64_t t) {
    if (t % 4 == 0) seek(t);
  }
  Code<double> word(int u, int64_t t) const { return (Code<double>)words[u][t % 4]; }
};

// Visits a matrix in small tiles, columns first: both sides of a transposition then stay in the cache.
template <typename Visit>
ULPGRAD_INLINE void over_tiles(int64_t rows, int64_t columns, const Visit& visit) {
  constexpr int64_t kHigh = 16, kWide = 8;
  for (int64_t top = 0; top < rows; top += kHigh)
    for (int64_t left = 0; left < columns; left += kWide)
      for (int64_t j = left; j < least(columns, left + kWide); ++j)
        for (int64_t i = top; i < least(rows, top + kHigh); ++i) visit(i, j);
}

// A block of a matrix as rows of `width` values, zeros beyond its columns.
template <typename In, typename T>
static void pack(const Strided<const In>& from, int64_t rows, int64_t columns, int64_t width, T* to) {
  if (columns < width) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = columns; j < width; ++j) to[i * width + j] = 0;
  }
  if (from.column == 1) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) to[i * width + j] = static_cast<T>(from.values[i * from.row + j]);
  } else {
    over_tiles(rows, columns, [&](int64_t i, int64_t j) {
      to[i * width + j] = static_cast<T>(from.values[i * from.row + j * from.column]);
    });
  }
}

// The way back, for the columns there are.
template <typename T, typename Out>
static void unpack(const T* from, int64_t rows, int64_t columns, int64_t width, const Strided<Out>& to) {
  if (to.column == 1) {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) to.values[i * to.row + j] = static_cast<Out>(from[i * width + j]);
  } else {
    over_tiles(rows, columns, [&](int64_t i, int64_t j) {
      to.values[i * to.row + j * to.column] = static_cast<Out>(from[i * width + j]);
    });
  }
}

template <typename In>
ULPGRAD_INLINE Strided<In> part(const Strided<In>& of, int64_t i, int64_t j) {
  return {of.values + i * of.row + j * of.column, of.row, of.column};
}

// One row of results over the terms [begin, begin + depth): `sums` holds U vectors of totals and U of the open chunk.
template <typename Step, int U>
static void advance(const Step& step, const Accumulation& how, Draw<Step, U>& draw, const typename Step::T* left,
                    const typename Step::T* panel, int64_t begin, int64_t depth, int64_t k, typename Step::T* sums) {
  using T = typename Step::T;
  constexpr int64_t width = U * kLanes<T>;
  Vec<T> open[U];
  for (int u = 0; u < U; ++u) open[u] = load(sums + width + u * kLanes<T>);
  for (int64_t t = 0; t < depth;) {
    const int64_t end = least(depth, t + how.chunk - (begin + t) % how.chunk);
    draw.seek(begin + t);
    for (; t < end; ++t) {
      draw.follow(begin + t);
      const Vec<T> a = broadcast(left[t]);
#pragma GCC unroll 8
      for (int u = 0; u < U; ++u)
        open[u] = step.multiply_add(open[u], a, load(panel + t * width + u * kLanes<T>), draw.word(u, begin + t));
    }
    const int64_t done = begin + t;
    if (how.chunk < k && (done % how.chunk == 0 || done == k)) {
      const int64_t addition = k + (done - 1) / how.chunk;
      draw.seek(addition);
      for (int u = 0; u < U; ++u) {
        T* total = sums + u * kLanes<T>;
        store(total, step.add(load(total), open[u], draw.word(u, addition)));
        open[u] = Vec<T>{};
      }
    }
  }
  for (int u = 0; u < U; ++u) store(sums + width + u * kLanes<T>, open[u]);
}

// A block of rows by one panel of columns.
template <typename In, typename Step, int U>
static void tile(const Accumulation& how, const Step& step, const AccumulateTask<In>& task, int64_t i, int64_t j) {
  using T = typename Step::T;
  constexpr int64_t width = U * kLanes<T>;
  const int64_t rows = least(kRows, task.m - i), columns = least(width, task.n - j);
  T* panel = static_cast<T*>(scratch(Slot::gemm_b, sizeof(T) * (kDepth * width + kRows * (kDepth + 2 * width))));
  T *left = panel + kDepth * width, *sums = left + kRows * kDepth;
  for (int64_t s = 0; s < rows * 2 * width; ++s) sums[s] = 0;
  for (int64_t begin = 0; begin < task.k; begin += kDepth) {
    const int64_t depth = least(kDepth, task.k - begin);
    pack(part(task.b, begin, j), depth, columns, width, panel);
    pack(part(task.a, i, begin), rows, depth, kDepth, left);
    for (int64_t r = 0; r < rows; ++r) {
      Draw<Step, U> draw(how, task.first + (i + r) * task.c.row + j * task.c.column, task.c.column);
      advance<Step, U>(step, how, draw, left + r * kDepth, panel, begin, depth, task.k, sums + r * 2 * width);
    }
  }
  const int64_t from = how.chunk < task.k ? 0 : width;  // a single chunk needs no total
  unpack(sums + from, rows, columns, 2 * width, part(task.c, i, j));
}

struct Product {
  template <typename In, typename Step>
  static void run(const Accumulation& how, const AccumulateTask<In>& task) {
    const Step step(how);
    const bool narrow = task.n <= kLanes<typename Step::T>;
    for (int64_t j = 0; j < task.n; j += (narrow ? 1 : 8) * kLanes<typename Step::T>)
      for (int64_t i = 0; i < task.m; i += kRows)
        narrow ? tile<In, Step, 1>(how, step, task, i, j) : tile<In, Step, 8>(how, step, task, i, j);
  }
};

struct Running {
  template <typename In, typename Step>
  static void run(const Accumulation& how, const RunningTask<In>& task) {
    using T = typename Step::T;
    constexpr int U = 4;
    constexpr int64_t width = U * kLanes<T>;
    const Step step(how);
    T* panel = static_cast<T*>(scratch(Slot::gemm_b, sizeof(T) * kDepth * width));
    for (int64_t j = 0; j < task.n; j += width) {
      const int64_t columns = least(width, task.n - j);
      Draw<Step, U> draw(how, task.first + j, 1);
      Vec<T> sum[U] = {};
      for (int64_t begin = 0; begin < task.k; begin += kDepth) {
        const int64_t depth = least(kDepth, task.k - begin);
        pack(part(task.x, begin, j), depth, columns, width, panel);
        draw.seek(begin);
        for (int64_t t = 0; t < depth; ++t) {
          draw.follow(begin + t);
          for (int u = 0; u < U; ++u) {
            T* at = panel + t * width + u * kLanes<T>;
            sum[u] = step.add(sum[u], load(at), draw.word(u, begin + t));
            store(at, sum[u]);
          }
        }
        unpack(panel, depth, columns, width, part(task.out, begin, j));
      }
    }
  }
};

// Runs what is asked for with the fastest way of rounding that serves the format.
template <typename What, typename In, typename Task>
static void by_format(const Accumulation& how, const Task& task) {
  const AccumulatorFormat& f = how.format;
#if ULPGRAD_ISA_LEVEL == 2
  if constexpr (sizeof(In) == 4) {
    const bool room = how.random_bits == 0 && f.min_exponent >= -126 && f.max_exponent <= 127;
    const bool aligned = f.min_exponent == -126;
    if (room && aligned && f.mantissa_bits == 23 && f.max == 0x1.fffffep127 && f.beyond > f.max)
      return What::template run<In, Plain<float>>(how, task);
    if (room && aligned && f.mantissa_bits <= 21) return What::template run<In, Aligned>(how, task);
    if (room && !aligned && f.mantissa_bits <= 21 && f.max_exponent + 24 - f.mantissa_bits <= 127)
      return What::template run<In, Nearest<float>>(how, task);
  }
#endif
  if (how.random_bits > 0) return What::template run<In, Stochastic>(how, task);
  if (f.mantissa_bits == 52) return What::template run<In, Plain<double>>(how, task);
  return What::template run<In, Nearest<double>>(how, task);
}

extern const AccumulateTable accumulate_table = {
    by_format<Product, float, AccumulateTask<float>>, by_format<Product, double, AccumulateTask<double>>,
    by_format<Running, float, RunningTask<float>>, by_format<Running, double, RunningTask<double>>};

}  // namespace ulpgrad::ULPGRAD_ISA
